"""Reads images and masks from files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.errors import DatasetError
from calibration.imaging.image_form import looks_like_mask
from calibration.imaging.preprocess import Image, as_bgr8

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MASK_SUFFIX = ".png"
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_PNG_START, _PNG_END, _PNG_AROUND = b"\x89PNG\r\n\x1a\n", b"IEND", 12
_JPEG_START = b"\xff\xd8"
# In the compressed data a marker is what is neither a stuffed zero nor a restart.
_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_JPEG_STARTS_AGAIN, _JPEG_END, _JPEG_SCAN, _JPEG_WITHOUT_LENGTH = 0xD8, 0xD9, 0xDA, 0x01


def read_image(path: Path) -> Image:
    """Read an image, (rows, columns, 3), uint8, BGR, upright (EXIF orientation applied).

    Raises:
        DatasetError: Not readable, not an image, truncated, or neither 8 nor 16 bits deep.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(what=f"cannot read {path}: {error.strerror}", remedy="check the file") from error
    return decode_image(content, str(path))


def decode_image(content: bytes, name: str) -> Image:
    """Decode the content of an image file, or of a JPEG frame of a video, as ``read_image`` does.

    Raises:
        DatasetError: Names the image; see ``read_image``.
    """
    if _is_truncated(content):
        raise DatasetError(what=f"{name} is truncated", remedy="copy the file again")
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise DatasetError(what=f"{name} is not an image: {error.err}", remedy="remove or replace it") from error
    if decoded is None:
        raise DatasetError(what=f"{name} is damaged or not an image", remedy="remove or replace it")
    try:
        return as_bgr8(decoded)
    except DatasetError as error:
        raise DatasetError(what=f"{name}: {error.what}", remedy=error.remedy) from error


def _is_truncated(content: bytes) -> bool:
    """Whether a file is empty, or a JPEG or PNG ends too early.

    OpenCV 4 fills the rest of a JPEG with grey silently, and OpenCV 5 takes as much memory, gigabytes, as a damaged
    length in a PNG says.
    """
    if content.startswith(_PNG_START):
        return _is_truncated_png(content)
    if content.startswith(_JPEG_START):
        return _is_truncated_jpeg(content)
    return not content


def _is_truncated_png(content: bytes) -> bool:
    """Whether a chunk reaches beyond the end. A chunk is its length, name, content and checksum."""
    position = len(_PNG_START)
    while position < len(content):
        length, name = int.from_bytes(content[position : position + 4], "big"), content[position + 4 : position + 8]
        position += _PNG_AROUND + length
        if name == _PNG_END:
            break
    return position > len(content) or position == len(_PNG_START)


def _is_truncated_jpeg(content: bytes) -> bool:
    """Whether the image data has no end.

    What follows it (the video of a motion photo, a second image, padding) does not matter.
    """
    position, has_image_data = len(_JPEG_START), False
    while (found := _JPEG_MARKER.search(content, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker in {_JPEG_END, _JPEG_STARTS_AGAIN}:
            return marker == _JPEG_STARTS_AGAIN
        has_image_data |= marker == _JPEG_SCAN
        if marker != _JPEG_WITHOUT_LENGTH:
            position += int.from_bytes(content[position : position + 2], "big")
    return has_image_data


def image_files_in(folder: Path) -> list[Path]:
    """All images directly in a folder, sorted, without masks: see ``images_and_masks_in``."""
    return images_and_masks_in(folder)[0]


def images_and_masks_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """All images directly in a folder, sorted; and the masks among them.

    A PNG next to a photo of the same name is its mask if it looks like one; otherwise it is an image of its own.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    photos = {path.stem for path in found if path.suffix.lower() != MASK_SUFFIX}
    masks = {path for path in found if path.suffix.lower() == MASK_SUFFIX and path.stem in photos and _is_mask(path)}
    return [path for path in found if path not in masks], sorted(masks)


def _is_mask(path: Path) -> bool:
    try:
        return looks_like_mask(read_image(path))
    except DatasetError:
        return False  # reading it as an image says that it is damaged


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Area of a defect, (rows, columns): the pixels with any non-zero colour.

    Raises:
        DatasetError: Not readable.
    """
    content = np.frombuffer(path.read_bytes(), np.uint8)  # OpenCV takes no path that is not UTF-8
    mask = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if mask is None:
        raise DatasetError(what=f"cannot read the mask {path}", remedy="remove or replace it")
    area: NDArray[np.bool_] = (mask.reshape(*mask.shape[:2], -1)[..., :3] != 0).any(axis=2)
    return area
