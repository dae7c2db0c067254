"""What an operator looks at: the frame, the heat of its defects, and the verdict in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.preprocess import Image, Region, crop

Array: TypeAlias = NDArray[np.float32]
Colour: TypeAlias = tuple[int, int, int]

# In distances (roots of scores) relative to the threshold: where the colour begins, and where it is strongest.
_FAINTEST, _STRONGEST = 0.8, 1.6
_OPACITY = 0.45
# The darkest and lightest colours of the map would pass for shadow and glare.
_COLOUR_FROM, _COLOUR_TO = 0.38, 0.92
_HIGHEST_RATIO = 4.0

_WHITE: Colour = (255, 255, 255)
_RED: Colour = (48, 32, 224)
_GREEN: Colour = (80, 160, 40)
_GREY: Colour = (120, 120, 120)
_BAR: Colour = (28, 26, 24)
_TEXT: Colour = (232, 232, 232)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LOWEST_BAR_PX = 20


@dataclass(frozen=True, slots=True)
class Caption:
    """What the bar below the picture says.

    Attributes:
        score: Score of the frame; above the threshold reads NOT OK, not finite reads NOT DECIDABLE.
        threshold: Of the score.
        created_at_ms: ms since 1970, shown in UTC (Z).
    """

    score: float
    threshold: float
    created_at_ms: int


def overlay(frame: Image, region: Region | None, score_map: Array, threshold: float) -> Image:
    """The frame with the heat of the score map over the region, and a contour around what is above the threshold.

    Whenever a place of the map is above the threshold, there is a contour.

    Args:
        frame: (rows, columns, 3), uint8, BGR; not changed.
        region: What the score map covers, from edge to edge; None is the whole frame.
        score_map: (h, w), squared distances, any resolution; places that are not finite stay bare.
        threshold: Of the score, positive.

    Returns:
        (rows, columns, 3), uint8, BGR.

    Raises:
        DatasetError: The region reaches outside the frame.
    """
    picture: Image = frame.copy()
    inspected = picture if region is None else crop(picture, region)
    line_px = max(1, round(min(picture.shape[:2]) / 400))
    if region is not None:
        corner = (region.x + region.width - 1, region.y + region.height - 1)
        cv2.rectangle(picture, (region.x, region.y), corner, _TEXT, line_px)
    distance = _relative_distance(score_map, threshold)
    enlarged = _enlarged(distance, inspected.shape[0], inspected.shape[1])
    _blend(inspected, enlarged)
    if distance.max() > 1:
        _outline(inspected, _above(distance, enlarged), line_px)
    return picture


def captioned(picture: Image, caption: Caption) -> Image:
    """The picture with a bar below it: verdict, score, threshold, time (as far as they fit). Nothing is covered.

    Returns:
        (rows + bar, columns, 3), uint8, BGR.
    """
    rows, columns = picture.shape[:2]
    bar = np.full((max(_LOWEST_BAR_PX, round(0.06 * min(rows, columns))), columns, 3), _BAR, np.uint8)
    verdict, colour = _verdict(caption)
    score = f"score {caption.score:.4g}" if math.isfinite(caption.score) else "no score"
    when = datetime.fromtimestamp(caption.created_at_ms / 1000, tz=timezone.utc)
    padding = bar.shape[0] // 2
    left = 2 * padding + _text_width(bar, verdict)
    bar[:, :left] = colour
    _write(bar, verdict, padding, _WHITE)
    for text in (score, f"threshold {caption.threshold:.4g}", f"{when:%Y-%m-%d %H:%M:%S}Z"):
        left += padding
        if left + _text_width(bar, text) > columns:
            break
        _write(bar, text, left, _TEXT)
        left += padding + _text_width(bar, text)
    return np.concatenate([picture, bar])


def _relative_distance(score_map: Array, threshold: float) -> Array:
    """Root of score over threshold: 1 is the threshold.

    Roots and a highest value, because interpolated squares would swell a peak over all its neighbours.
    """
    ratio = np.nan_to_num(score_map.astype(np.float64) / threshold, nan=0.0, posinf=0.0, neginf=0.0)
    return np.sqrt(np.clip(ratio, 0.0, _HIGHEST_RATIO)).astype(np.float32)


def _enlarged(distance: Array, rows: int, columns: int) -> Array:
    cell_px = min(rows / distance.shape[0], columns / distance.shape[1])
    enlarged = cv2.resize(distance, (columns, rows), interpolation=cv2.INTER_LINEAR)
    if cell_px > 1:
        enlarged = cv2.GaussianBlur(enlarged, (0, 0), cell_px / 4)
    return enlarged.astype(np.float32, copy=False)


def _above(distance: Array, enlarged: Array) -> NDArray[np.bool_]:
    """Pixels above the threshold, and the whole of each place whose peak the smoothing took below it."""
    rows, columns = enlarged.shape
    area: NDArray[np.bool_] = enlarged > 1
    places = cv2.resize((distance > 1).astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
    count, labels = cv2.connectedComponents(places)
    for label in range(1, count):
        place = labels == label
        if not area[place].any():
            area |= place
    return area


def _blend(picture: Image, distance: Array) -> None:
    strength = np.clip((distance - _FAINTEST) / (_STRONGEST - _FAINTEST), 0.0, 1.0)
    shade = 255 * (_COLOUR_FROM + (_COLOUR_TO - _COLOUR_FROM) * strength)
    heat = cv2.applyColorMap(shade.astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.float32)
    visible = np.clip(3 * strength, 0.0, 1.0)
    opacity = (_OPACITY * visible * visible * (3 - 2 * visible))[..., None]
    picture[:] = np.rint(picture + opacity * (heat - picture)).astype(np.uint8)


def _outline(picture: Image, area: NDArray[np.bool_], line_px: int) -> None:
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Drawn on a copy: OpenCV does not draw into a part of a picture.
    drawn = np.ascontiguousarray(picture)
    cv2.drawContours(drawn, contours, -1, _WHITE, 3 * line_px, cv2.LINE_AA)
    cv2.drawContours(drawn, contours, -1, _RED, line_px, cv2.LINE_AA)
    picture[:] = drawn


def _verdict(caption: Caption) -> tuple[str, Colour]:
    if not math.isfinite(caption.score):
        return "NOT DECIDABLE", _GREY
    return ("NOT OK", _RED) if caption.score > caption.threshold else ("OK", _GREEN)


def _text_scale(bar: Image) -> float:
    return int(bar.shape[0]) / 50


def _stroke_px(bar: Image) -> int:
    return max(1, round(_text_scale(bar)))


def _text_width(bar: Image, text: str) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, _text_scale(bar), _stroke_px(bar))
    return int(width)


def _write(bar: Image, text: str, left: int, colour: Colour) -> None:
    baseline = round(0.68 * bar.shape[0])
    cv2.putText(bar, text, (left, baseline), _FONT, _text_scale(bar), colour, _stroke_px(bar), cv2.LINE_AA)
