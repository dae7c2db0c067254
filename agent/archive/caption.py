"""The caption bar below an archived image."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.plain_text import rounded

if TYPE_CHECKING:
    from calibration.imaging.heatmap import Colour
    from calibration.imaging.preprocess import Image

_WHITE: Colour = (255, 255, 255)
_RED: Colour = (48, 32, 224)
_GREEN: Colour = (80, 160, 40)
_GREY: Colour = (120, 120, 120)
_BAR: Colour = (28, 26, 24)
_TEXT: Colour = (232, 232, 232)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LOWEST_BAR_PX = 20


def captioned(image: Image, score: float, threshold: float, created_at_ms: int) -> Image:
    """The image with a bar below it: verdict, score, threshold, time (as far as they fit). Nothing is covered.

    Args:
        image: (rows, columns, 3), uint8, BGR.
        score: Above the threshold it reads NOT OK, not finite NOT DECIDABLE.
        threshold: Threshold of the score.
        created_at_ms: ms since 1970, shown in UTC (Z).

    Returns:
        (rows + bar, columns, 3), uint8, BGR.
    """
    rows, columns = image.shape[:2]
    bar = np.full((max(_LOWEST_BAR_PX, round(0.06 * min(rows, columns))), columns, 3), _BAR, np.uint8)
    verdict, colour = _verdict(score, threshold)
    score_text = f"score {rounded(score, 4)}" if math.isfinite(score) else "no score"
    when = datetime.fromtimestamp(created_at_ms / 1000, tz=timezone.utc)
    padding = bar.shape[0] // 2
    left = 2 * padding + _text_width(bar, verdict)
    bar[:, :left] = colour
    _write(bar, verdict, padding, _WHITE)
    for text in (score_text, f"threshold {rounded(threshold, 4)}", f"{when:%Y-%m-%d %H:%M:%S}Z"):
        left += padding
        if left + _text_width(bar, text) > columns:
            break
        _write(bar, text, left, _TEXT)
        left += padding + _text_width(bar, text)
    return np.concatenate([image, bar])


def _verdict(score: float, threshold: float) -> tuple[str, Colour]:
    if not math.isfinite(score):
        return "NOT DECIDABLE", _GREY
    return ("NOT OK", _RED) if score > threshold else ("OK", _GREEN)


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
