"""Images as GenICam cameras send them, by the names of the Pixel Format Naming Convention."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from agent.errors import CameraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image


class _PixelFormat(NamedTuple):
    """How pixels lie in memory, and what OpenCV makes BGR of them with; 16 bits hold a value of ``bits``."""

    code: int
    bits: int
    channels: int
    conversion: int | None


_GREY = cv2.COLOR_GRAY2BGR
_BAYER = {
    "GR": cv2.COLOR_BayerGRBG2BGR,
    "RG": cv2.COLOR_BayerRGGB2BGR,
    "GB": cv2.COLOR_BayerGBRG2BGR,
    "BG": cv2.COLOR_BayerBGGR2BGR,
}
_BAYER_CODES = {8: 0x01080008, 10: 0x0110000C, 12: 0x01100010, 16: 0x0110002E}
_FORMATS = {
    "Mono8": _PixelFormat(0x01080001, 8, 1, _GREY),
    "Mono10": _PixelFormat(0x01100003, 10, 1, _GREY),
    "Mono12": _PixelFormat(0x01100005, 12, 1, _GREY),
    "Mono14": _PixelFormat(0x01100025, 14, 1, _GREY),
    "Mono16": _PixelFormat(0x01100007, 16, 1, _GREY),
    **{
        f"Bayer{order}{bits}": _PixelFormat(first + place, bits, 1, conversion)
        for bits, first in _BAYER_CODES.items()
        for place, (order, conversion) in enumerate(_BAYER.items())
    },
    "RGB8": _PixelFormat(0x02180014, 8, 3, cv2.COLOR_RGB2BGR),
    "BGR8": _PixelFormat(0x02180015, 8, 3, None),
    "RGBa8": _PixelFormat(0x02200016, 8, 4, cv2.COLOR_RGBA2BGR),
    "BGRa8": _PixelFormat(0x02200017, 8, 4, cv2.COLOR_BGRA2BGR),
    "YUV422_8_UYVY": _PixelFormat(0x0210001F, 8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "YUV422_8": _PixelFormat(0x02100032, 8, 2, cv2.COLOR_YUV2BGR_YUY2),
}
_NAMES = {each.code: name for name, each in _FORMATS.items()}


def name_of(code: int) -> str:
    """The name of a pixel format by its code; the code itself, as ``0x010c0004``, if it cannot be read here."""
    return _NAMES.get(code, f"0x{code:08x}")


def bgr_from(data: NDArray[np.uint8], pixel_format: str, rows: int, columns: int) -> Image | None:
    """The image in a buffer.

    Args:
        data: (bytes,), as the camera sent it; rows may be padded at their end.
        pixel_format: Its name.
        rows: Height, pixels.
        columns: Width, pixels.

    Returns:
        (rows, columns, 3), uint8, BGR, a copy; of more than eight bits the highest. None if there are too few bytes.

    Raises:
        CameraError: This format is not one that can be read.
    """
    known = _FORMATS.get(pixel_format)
    if known is None:
        raise CameraError(
            what=f"the camera sends pixels as {pixel_format}",
            remedy=f"set camera.format to one of these, if it has it: {', '.join(_FORMATS)}",
        )
    row_bytes = columns * known.channels * (1 if known.bits == 8 else 2)  # noqa: PLR2004 - bits of a byte
    sent_row_bytes = data.size // rows if rows else 0
    if not row_bytes or sent_row_bytes < row_bytes:
        return None
    pixels = data[: rows * sent_row_bytes].reshape(rows, sent_row_bytes)[:, :row_bytes]
    if known.bits > 8:  # noqa: PLR2004 - bits of a byte
        wide = np.ascontiguousarray(pixels).view("<u2")
        pixels = (wide >> (known.bits - 8)).astype(np.uint8)
    image = np.ascontiguousarray(pixels).reshape(rows, columns, known.channels)
    return np.array(image if known.conversion is None else cv2.cvtColor(image, known.conversion), np.uint8)
