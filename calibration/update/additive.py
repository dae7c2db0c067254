"""What was learnt apart, added: exactly what learning from all images at once would have given.

For devices, too: NumPy only. New moments become a network by
``learner(...).head(moments)`` and ``fusion.replace_head``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from calibration.detectors.contract import Detector
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.errors import SettingError
from calibration.statistics.moments import Moments, merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from calibration.bundle.manifest import DetectorRecord, Manifest
    from calibration.detectors.head import Scorer, WhiteningHead

_REASONS = {
    "gaussian": "is shrunk by how every single feature vector differs, which is not kept",
    "patchcore": "remembers patches, and has no moments",
    "patch_svdd": "trains encoders of its own for each set of images",
}
_KINDS = "divides the images into kinds, which may be others among all of them"


class AdditiveDetector(Detector, Protocol):
    """A detector that needs nothing but moments."""

    def vectors(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the moments are of: (n, d, h, w) to (locations, vectors, d)."""

    def head(self, moments: Moments) -> WhiteningHead:
        """The head for these moments.

        Raises:
            DegenerateFeaturesError: Of fewer than two images, or all alike.
        """

    def leave_one_out_scorer(self, moments: Moments, image_weight: float = 1.0) -> Scorer:
        """Scores images that the moments hold, and that weigh so much in them, as if they did not hold them."""


def weighted_sum(parts: Sequence[Moments], weights: Sequence[float]) -> Moments:
    """The moments of all images together, those of each part with its weight.

    With weights w: n = sum of w n_i, mu = sum of w n_i mu_i / n, scatter = sum of w (S_i + n_i d_i d_i^T), where
    d_i = mu_i - mu. The covariance is scatter / (n - sum of w^2 n_i / n), which is unbiased for all weights; with all
    of them 1 this is one fit to all images. What was added, with weights, can be added again.

    Args:
        parts: Of the same locations and channels; they stay as they are.
        weights: What an image of each part counts, above 0. Less than 1 forgets: 0.5 makes two images count as one.

    References:
        Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    return merged([part.weighted(weight) for part, weight in zip(parts, weights, strict=True)])


def additive_detector(record: DetectorRecord) -> AdditiveDetector:
    """The detector of a manifest, if its head follows from moments.

    Raises:
        SettingError: It does not.
    """
    if record.name == Padim.name:
        return Padim(int(record.parameters["dimensions"]))
    reason = _KINDS if record.parameters.get("modes", 1) != 1 else _REASONS.get(record.name)
    if reason is not None:
        raise SettingError(
            what=f"what {record.name} learnt cannot be added: it {reason}",
            remedy="calibrate once, on all images together; mean_shift (without --modes) and padim can be added",
        )
    given: dict[str, Any] = dict(record.parameters)
    given.pop("alpha_from_moments", None)  # written by older software
    return MeanShift(**{**given, "pooling_order": float(given.get("pooling_order", math.inf))})


def manifest_differences(one: Manifest, other: Manifest) -> Iterator[str]:
    """What makes the moments of two bundles those of different things: nothing may, but the images."""
    ours, theirs = _compared(one), _compared(other)
    for name in dict.fromkeys((*ours, *theirs)):
        if ours.get(name) != theirs.get(name):
            yield f"{name} is {ours.get(name)} and {theirs.get(name)}"


def _compared(manifest: Manifest) -> dict[str, object]:
    parameters = dict(manifest.detector.parameters)
    parameters.pop("alpha_from_moments", None)  # written by older software
    return {
        **{f"preprocess.{name}": value for name, value in manifest.preprocess.model_dump().items()},
        **{f"backbone.{name}": value for name, value in manifest.backbone.model_dump().items()},
        "augment": manifest.augment,
        "detector": manifest.detector.name,
        **{f"detector.{name}": value for name, value in parameters.items()},
    }
