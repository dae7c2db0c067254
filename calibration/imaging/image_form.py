"""What an image file holds that the image read from it does not show: depth, pages, orientation; and masks."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calibration.imaging.preprocess import Image

_BEGINNING_BYTES = 2**16
_PNG, _EXIF, _TIFF = b"\x89PNG", b"Exif\0\0", {b"II*\0": "<", b"MM\0*": ">"}
_PNM_LARGEST = re.compile(rb"P[2356]\s(?:\s*#[^\n]*\n)*\s*\d+\s+\d+\s+(\d+)\s")
_TIFF_BITS, _TIFF_ORIENTATION, _UPRIGHT = 0x0102, 0x0112, 1
_BYTE, _WORD = 8, 16
_MOST_PAGES = 10_000
_SAMPLE_SIDE = 128
_NEAR, _CONTRAST, _MASK_SHARE, _MASK_VALUES = 16, 64, 0.95, 8


@dataclass(frozen=True, slots=True)
class ImageForm:
    """The form of an image and of its file.

    Attributes:
        size: (columns, rows), upright.
        is_colour: Its channels differ.
        bits: Depth of the values in the file.
        used_bits: Bits that its highest value takes; of 8-bit images all.
        has_pages: The file has further pages or frames.
        is_turned: The file says that it has to be turned or mirrored to be upright.
        is_mask_like: See ``looks_like_mask``.
    """

    size: tuple[int, int]
    is_colour: bool
    bits: int = _BYTE
    used_bits: int = _BYTE
    has_pages: bool = False
    is_turned: bool = False
    is_mask_like: bool = False


def image_form(path: Path, image: Image) -> ImageForm:
    """The form of a file, and of the image that was read from it."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
            content = beginning + file.read() if beginning[:4] in _TIFF else beginning
    except OSError:  # it was readable a moment ago
        content = b""
    tiff = content if content[:4] in _TIFF else content.partition(_EXIF)[2]
    tags, pages = _tags_and_pages(tiff)
    bits = _bits(content, tags)
    blue, green, red = np.moveaxis(_sample(image), 2, 0)
    return ImageForm(
        size=(image.shape[1], image.shape[0]),
        is_colour=bool((blue != green).any() or (green != red).any()),
        bits=bits,
        used_bits=bits if bits == _BYTE else _used_bits(path),
        has_pages=(tiff is content and pages > 1)
        or b"acTL" in content[:_BEGINNING_BYTES]
        or _is_animated_webp(content),
        is_turned=tags.get(_TIFF_ORIENTATION, _UPRIGHT) != _UPRIGHT,
        is_mask_like=looks_like_mask(image),
    )


def looks_like_mask(image: Image) -> bool:
    """Whether an image is black with a few other values, or all but black and white: a mask, not a photo."""
    blue, green, red = np.moveaxis(_sample(image), 2, 0)
    brightest = np.maximum(np.maximum(blue, green), red)  # many times as fast as a maximum over the last axis
    counts = np.bincount(brightest.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    lowest, highest = int(values[0]), int(values[-1])
    if lowest == 0 and len(values) <= _MASK_VALUES:
        return True
    near = counts[: lowest + _NEAR + 1].sum() + counts[max(0, highest - _NEAR) :].sum()
    return lowest <= _NEAR and highest - lowest > _CONTRAST and bool(near >= _MASK_SHARE * counts.sum())


def _sample(image: Image) -> Image:
    step = max(1, min(image.shape[:2]) // _SAMPLE_SIDE)
    return image[::step, ::step]


def _bits(content: bytes, tags: dict[int, int]) -> int:
    if content.startswith(_PNG):
        return content[24] if len(content) > 24 and content[24] == _WORD else _BYTE  # noqa: PLR2004 - in IHDR
    if content[:4] in _TIFF:
        return _WORD if tags.get(_TIFF_BITS) == _WORD else _BYTE
    largest = _PNM_LARGEST.match(content)
    return _WORD if largest and int(largest[1]) > np.iinfo(np.uint8).max else _BYTE


def _used_bits(path: Path) -> int:
    decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    return _WORD if decoded is None else int(decoded[..., :3].max() if decoded.ndim > 2 else decoded.max()).bit_length()  # noqa: PLR2004


def _is_animated_webp(content: bytes) -> bool:
    return content[8:12] == b"WEBP" and b"ANIM" in content[:64]


def _tags_and_pages(content: bytes) -> tuple[dict[int, int], int]:
    """Short values of the first page of a TIFF by their tags, and the number of pages."""
    try:
        pages = list(_pages(content))
    except struct.error:  # cut short
        return {}, 1
    return (pages[0] if pages else {}), len(pages)


def _pages(content: bytes) -> Iterator[dict[int, int]]:
    order = _TIFF.get(content[:4])
    if order is None:
        return
    (position,) = struct.unpack_from(f"{order}I", content, 4)
    for _ in range(_MOST_PAGES):
        if not position:
            return
        (count,) = struct.unpack_from(f"{order}H", content, position)
        entries = (struct.unpack_from(f"{order}HHIHH", content, position + 2 + 12 * index) for index in range(count))
        yield {tag: _first_value(content, order, number, value) for tag, kind, number, *value in entries if kind == 3}  # noqa: PLR2004
        (position,) = struct.unpack_from(f"{order}I", content, position + 2 + 12 * count)


def _first_value(content: bytes, order: str, number: int, value: list[int]) -> int:
    """Up to two short values are in the entry itself, more of them where it points to."""
    if number <= len(value):
        return value[0]
    pointer = struct.pack(f"{order}HH", *value)
    (first,) = struct.unpack_from(f"{order}H", content, *struct.unpack(f"{order}I", pointer))
    return int(first)
