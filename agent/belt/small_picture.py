"""The scaled-down picture in which parts are sought."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

Small: TypeAlias = NDArray[np.float32]
"""(rows, columns, 3) or (rows, columns), in grey levels; its longer side has LONGER_SIDE_PX at most."""
Mask: TypeAlias = NDArray[np.uint8]
"""(rows, columns) of a small picture: 255 where it holds, else 0."""

LONGER_SIDE_PX = 320
"""A part of a thirtieth of the picture still has ten pixels, and a frame takes a few ms."""


def small_picture(image: Image) -> Small:
    """The picture with averaged noise and grain; no larger than the image."""
    rows, columns = image.shape[:2]
    scale = min(1.0, LONGER_SIDE_PX / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    averaged = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return np.asarray(cv2.blur(averaged, (3, 3)), np.float32)


def grey_of(picture: Small) -> Small:
    """Mean of the three colours, (rows, columns)."""
    return np.asarray(cv2.transform(picture, np.full((1, 3), 1 / 3, np.float32)), np.float32)
