"""A small picture inside a frame's PNG, so that a gallery need not decode the frame.

It is a private chunk behind the header, which programs that do not know it skip.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

import cv2

from calibration.atomic_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.imaging.preprocess import Image

LONGEST_SIDE_PX = 320
_KIND = b"smAL"  # not needed to show the frame, private, and of no use once the frame is changed
_HEADER_BYTES = 33  # signature and IHDR
_FRAMING_BYTES = 12  # length and kind before, checksum after
_LARGEST_BYTES = 256 * 1024
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 80]


def with_thumbnail(png: bytes, shown: Image) -> bytes:
    """A PNG with a thumbnail.

    Args:
        png: Without one.
        shown: What the thumbnail shows, (rows, columns, 3), uint8, BGR.
    """
    rows, columns = shown.shape[:2]
    factor = min(1.0, LONGEST_SIDE_PX / max(rows, columns))
    size = max(1, round(columns * factor)), max(1, round(rows * factor))
    jpeg = cv2.imencode(".jpg", cv2.resize(shown, size, interpolation=cv2.INTER_AREA), _QUALITY)[1].tobytes()
    chunk = _KIND + jpeg
    framed = struct.pack(">I", len(jpeg)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:_HEADER_BYTES] + framed + png[_HEADER_BYTES:]


def thumbnail_in(path: Path) -> bytes | None:
    """The thumbnail of a frame, as JPEG; None for a frame without one, as version 0.1.0 kept them, or a damaged one.

    Raises:
        OSError: The frame cannot be read.
    """
    with open_regular(path, os.O_NOFOLLOW) as file:
        start = file.read(_HEADER_BYTES + _FRAMING_BYTES + _LARGEST_BYTES)[_HEADER_BYTES:]
    size = int.from_bytes(start[:4], "big")
    chunk, checksum = start[4 : 8 + size], start[8 + size : 12 + size]
    is_whole = chunk.startswith(_KIND) and int.from_bytes(checksum, "big") == zlib.crc32(chunk)
    return chunk[len(_KIND) :] if is_whole else None
