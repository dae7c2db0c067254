"""A frame as browsers get it: encoded once for all of them, with the heat map as a layer of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2

from calibration.imaging.heatmap import heat_layer
from calibration.imaging.preprocess import Region
from calibration.imaging.score_map import cover_region

if TYPE_CHECKING:
    from agent.messages.records import Payload
    from agent.web.ipc import SharedImage, ShownFrame
    from calibration.imaging.preprocess import Image

_LONGEST_SIDE_PX = 1280
_LONGEST_LAYER_PX = 320
_JPEG_QUALITY = 80


def encoded(shared: SharedImage, shown: ShownFrame, result: Payload) -> bytes:
    """The frame in the shared memory, its heat map and its result, in one piece.

    Returns:
        Four bytes, big endian, with the length of a JSON object; the object; a JPEG of ``jpegBytes``; a PNG, with
        transparency, of ``heatBytes``, which covers ``region``.
    """
    jpeg = as_jpeg(shared.image(shown.rows, shown.columns), _LONGEST_SIDE_PX)
    region = Region(*(shown.region or (0, 0, shown.columns, shown.rows)))
    heat = b"" if shown.map_shape is None else _heat(shared, shown, region)
    about = {
        "id": shown.result_id,
        "at": shown.captured_at_ms,
        "rows": shown.rows,
        "columns": shown.columns,
        "region": [region.x, region.y, region.width, region.height],
        "isWhole": shown.region is None,
        **result,
        "jpegBytes": len(jpeg),
        "heatBytes": len(heat),
    }
    header = json.dumps(about).encode()
    return b"".join((len(header).to_bytes(4, "big"), header, jpeg, heat))


def as_jpeg(image: Image, longest_side_px: int) -> bytes:
    """The image as a JPEG, reduced if its longest side is longer."""
    size = _fitting(image.shape[1], image.shape[0], longest_side_px)
    smaller = image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _heat(shared: SharedImage, shown: ShownFrame, region: Region) -> bytes:
    if shown.map_shape is None:
        return b""
    score_map = cover_region(shared.score_map(*shown.map_shape), shown.grid)
    columns, rows = _fitting(region.width, region.height, _LONGEST_LAYER_PX)
    return cv2.imencode(".png", heat_layer(score_map, shown.threshold, rows, columns))[1].tobytes()


def _fitting(width: int, height: int, longest_px: int) -> tuple[int, int]:
    factor = min(1.0, longest_px / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))
