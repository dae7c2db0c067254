"""Random variants of a good frame: slightly rotated, shifted, scaled, and lighter or darker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

_ROTATION_DEGREES = 3.0
_SHIFT_SHARE = 0.02
_SCALE_SHARE = 0.03
_LIGHT_SHARE = 0.05


def augmented(frame: Image, random: np.random.Generator) -> Image:
    """A random variant of the frame, (height, width, 3), uint8; the border is mirrored."""
    height, width = frame.shape[:2]
    angle = random.uniform(-_ROTATION_DEGREES, _ROTATION_DEGREES)
    scale = 1.0 + random.uniform(-_SCALE_SHARE, _SCALE_SHARE)
    transform = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale), np.float64)
    transform[:, 2] += random.uniform(-_SHIFT_SHARE, _SHIFT_SHARE, 2) * (width, height)
    warped = cv2.warpAffine(
        frame, transform, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    light = 1.0 + random.uniform(-_LIGHT_SHARE, _LIGHT_SHARE)
    return np.asarray(cv2.convertScaleAbs(warped, alpha=light), np.uint8)
