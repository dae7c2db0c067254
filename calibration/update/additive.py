"""Detectors whose heads follow from moments alone, so that bundles can be added and updated exactly.

Runs on devices: NumPy only. A head of new moments goes into a network by ``network.replace_head``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.errors import SettingError
from calibration.statistics.moments import Moments, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.bundle.manifest import DetectorRecord
    from calibration.detectors.contract import AdditiveDetector

_REASONS = {
    "gaussian": "its shrinkage needs every feature vector, and these are not kept",
    "patchcore": "it stores patches and has no moments",
    "patch_svdd": "it trains encoders of its own for each set of images",
}
_MODES = "its modes may be others among all images"


def weighted_sum(parts: Sequence[Moments], weights: Sequence[float]) -> Moments:
    """Moments of all images together, each part with its weight.

    With weights w: n = sum of w n_i, mu = sum of w n_i mu_i / n, scatter = sum of w (S_i + n_i d_i d_i^T), where
    d_i = mu_i - mu. The covariance is scatter / (n - sum of w^2 n_i / n), which is unbiased for all weights. With all
    weights 1 this equals one fit to all images. A weighted sum can be part of another one.

    Args:
        parts: Moments of the same locations and channels; they stay as they are.
        weights: Weight of an image of each part, above 0. With 0.5, two images count as one.

    References:
        Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    return merged([part.weighted(weight) for part, weight in zip(parts, weights, strict=True)])


def additive_detector(record: DetectorRecord) -> AdditiveDetector:
    """The detector of a manifest, if its head follows from moments.

    Raises:
        SettingError: The head does not.
    """
    if record.name == Padim.name:
        return Padim(int(record.parameters["dimensions"]))
    reason = _MODES if record.parameters.get("modes", 1) != 1 else _REASONS.get(record.name)
    if reason is not None:
        raise SettingError(
            what=f"statistics of {record.name} cannot be added: {reason}",
            remedy="calibrate once, on all images together; mean_shift (without --modes) and padim can be added",
        )
    given: dict[str, Any] = dict(record.parameters)
    given.pop("alpha_from_moments", None)  # written by older software
    return MeanShift(**{**given, "pooling_order": float(given.get("pooling_order", math.inf))})
