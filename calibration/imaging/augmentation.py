"""Good frames varied as parts and cameras vary: a little turned, moved, scaled, lighter or darker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

_TURN_DEGREES = 3.0
_SHIFT_SHARE = 0.02
_SCALE_SHARE = 0.03
_LIGHT_SHARE = 0.05


def augmented(frame: Image, random: np.random.Generator) -> Image:
    """The frame as the next good part might look, (height, width, 3), uint8; the border is mirrored."""
    height, width = frame.shape[:2]
    turn = random.uniform(-_TURN_DEGREES, _TURN_DEGREES)
    scale = 1.0 + random.uniform(-_SCALE_SHARE, _SCALE_SHARE)
    moved = cv2.getRotationMatrix2D((width / 2, height / 2), turn, scale)
    shift = random.uniform(-_SHIFT_SHARE, _SHIFT_SHARE, 2) * np.array([width, height])
    moved = np.column_stack([moved[:, :2], moved[:, 2] + shift])
    warped = cv2.warpAffine(frame, moved, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    light = 1.0 + random.uniform(-_LIGHT_SHARE, _LIGHT_SHARE)
    return np.asarray(cv2.convertScaleAbs(warped, alpha=light), np.uint8)
