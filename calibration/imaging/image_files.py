"""Pictures from files, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.errors import DatasetError
from calibration.imaging.preprocess import Image, as_bgr8

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MASK_SUFFIX = ".png"
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_JPEG_START = b"\xff\xd8"
_JPEG_SCAN = b"\xff\xda"
_JPEG_END = b"\xff\xd9"


def read_image(path: Path) -> Image:
    """One picture, upright (EXIF orientation applied).

    Returns:
        (rows, columns, 3), uint8, BGR.

    Raises:
        DatasetError: Not readable, not a picture, cut short, or of another type than 8 or 16 bits.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(what=f"cannot read {path}: {error.strerror}", remedy="check the file") from error
    if _is_cut_short(content):
        raise DatasetError(what=f"{path} is cut short", remedy="copy the file again")
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise DatasetError(what=f"{path} is not a picture: {error.err}", remedy="remove or replace it") from error
    if decoded is None:
        raise DatasetError(what=f"{path} is damaged or not a picture", remedy="remove or replace it")
    try:
        return as_bgr8(decoded)
    except DatasetError as error:
        raise DatasetError(what=f"{path}: {error.what}", remedy=error.remedy) from error


def _is_cut_short(content: bytes) -> bool:
    """Whether a JPEG ends inside its picture data: OpenCV would fill the rest with grey and say nothing."""
    return not content or (content.startswith(_JPEG_START) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN))


def image_files_in(folder: Path) -> list[Path]:
    """All pictures directly in a folder, by name; a PNG beside a photo of the same name is its mask, and left out."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    photos = {path.stem for path in found if path.suffix.lower() != MASK_SUFFIX}
    return sorted(path for path in found if path.suffix.lower() != MASK_SUFFIX or path.stem not in photos)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Area of a defect, (rows, columns): where any colour of the picture is not zero.

    Raises:
        DatasetError: Not readable.
    """
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise DatasetError(what=f"cannot read the mask {path}", remedy="remove or replace it")
    colours = mask.reshape(*mask.shape[:2], -1)[..., :3]
    area: NDArray[np.bool_] = (colours != 0).any(axis=2)
    return area
