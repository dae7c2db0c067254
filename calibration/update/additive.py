"""Detectors whose heads follow from moments alone, so that bundles can be merged and updated exactly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim, PadimOnImage
from calibration.errors import SettingError

if TYPE_CHECKING:
    from calibration.bundle.manifest import DetectorRecord
    from calibration.detectors.contract import AdditiveDetector

_REASONS = {
    "gaussian": "its shrinkage needs every feature vector, and these are not kept",
    "hotelling": "its shrinkage needs sums over all patches, and these are not kept",
    "patchcore": "it stores patches and has no moments",
    "patch_svdd": "it trains encoders of its own for each set of images",
}
_MODES = "its modes may be others among all images"


def additive_detector(record: DetectorRecord) -> AdditiveDetector:
    """The detector of a manifest, if its head follows from moments.

    Raises:
        SettingError: The head does not.
    """
    if record.name == Padim.name:
        of_padim: dict[str, Any] = dict(record.parameters)
        return PadimOnImage(**of_padim) if "smoothing" in of_padim else Padim(**of_padim)
    reason = _MODES if record.parameters.get("modes", 1) != 1 else _REASONS.get(record.name)
    if reason is not None:
        raise SettingError(
            what=f"statistics of {record.name} cannot be added: {reason}",
            remedy="calibrate once, on all images together; mean_shift (without --modes) and padim can be added",
        )
    given: dict[str, Any] = dict(record.parameters)
    given.pop("alpha_from_moments", None)  # written by older software
    return MeanShift(**{**given, "pooling_order": float(given.get("pooling_order", math.inf))})
