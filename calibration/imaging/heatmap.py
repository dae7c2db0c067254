"""Draws the score map as a heat map over the frame."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.imaging.region import Image, Region, crop, whole_frame

Array: TypeAlias = NDArray[np.float32]
Colour: TypeAlias = tuple[int, int, int]

# Distances (roots of scores) relative to the threshold at which the colour begins, and at which it is strongest.
_FAINTEST, _STRONGEST = 0.8, 1.6
_OPACITY = 0.45
# The darkest and lightest colours of the map would pass for shadow and glare.
_COLOUR_FROM, _COLOUR_TO = 0.38, 0.92
_HIGHEST_RATIO = 4.0
_SMALLEST_SHARE = 0.25

_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)
_RED: Colour = (48, 32, 224)
_LIGHT: Colour = (232, 232, 232)


def overlay(frame: Image, region: Region | None, score_map: Array, threshold: float) -> Image:
    """A copy of the frame with the score map over the region, and a contour around every area above the threshold.

    Args:
        frame: (rows, columns, 3), uint8, BGR.
        region: What the score map covers, from edge to edge; may reach beyond the frame. None is the whole frame.
        score_map: (h, w), squared distances, any resolution; cells that are not finite stay bare.
        threshold: Score above which a cell is defective, positive.

    Raises:
        DatasetError: The region lies outside the frame.
    """
    drawn: Image = frame.copy()
    covered = region or whole_frame(frame)
    visible = covered.clipped(*frame.shape[:2])
    inspected, of_map = crop(drawn, visible), visible.moved(-covered.x, -covered.y)
    line_px = max(1, round(min(drawn.shape[:2]) / 400))
    if region is not None:
        corner = (region.x + region.width - 1, region.y + region.height - 1)
        cv2.rectangle(drawn, (region.x, region.y), corner, _LIGHT, line_px)
    distance = _relative_distance(score_map, threshold)
    enlarged = _enlarged(distance, covered.height, covered.width)
    _blend(inspected, crop(enlarged, of_map))
    if distance.max() > 1:
        _outline(inspected, crop(_above_threshold(distance, enlarged), of_map), line_px)
    return drawn


def heat_layer(score_map: Array, threshold: float, rows: int, columns: int) -> Image:
    """The heat map alone, to lay over the region: (rows, columns, 4), uint8, BGR and opacity, 0 where there is no heat.

    Score map and threshold are those of ``overlay``.
    """
    heat, opacity = _heat(_enlarged(_relative_distance(score_map, threshold), rows, columns))
    layer: Image = np.dstack([heat * (opacity > 0)[..., None], np.rint(255 * opacity).astype(np.uint8)])
    return layer


def display_threshold(score_map: Array, threshold: float) -> float:
    """The threshold with which ``overlay`` shows heat on any image.

    If nothing exceeds the threshold it is the highest score: the hottest cell is coloured, and nothing is outlined.
    """
    return max(min(threshold, float(score_map.max())), float(np.finfo(np.float32).tiny))


def hatched(image: Image, area: NDArray[np.bool_]) -> Image:
    """A copy of the image with an area hatched; the area is resized to the image."""
    rows, columns = image.shape[:2]
    inside = cv2.resize(area.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0
    step_px = max(4, min(rows, columns) // 32)
    down, right = np.indices((rows, columns))
    light, dark = ((down + right + shift) % step_px < max(1, step_px // 4) for shift in (0, step_px // 2))
    drawn: Image = image.copy()
    drawn[inside & light], drawn[inside & dark] = _WHITE, _BLACK
    return drawn


def _relative_distance(score_map: Array, threshold: float) -> Array:
    """Root of score over threshold: 1 is the threshold.

    Roots and an upper limit, because interpolated squares would spread a peak over all its neighbours.
    """
    ratio = np.nan_to_num(score_map.astype(np.float64) / threshold, nan=0.0, posinf=0.0, neginf=0.0)
    return np.sqrt(np.clip(ratio, 0.0, _HIGHEST_RATIO)).astype(np.float32)


def _enlarged(distance: Array, rows: int, columns: int) -> Array:
    cell_px = min(rows / distance.shape[0], columns / distance.shape[1])
    enlarged = cv2.resize(distance, (columns, rows), interpolation=cv2.INTER_LINEAR)
    if cell_px > 1:
        enlarged = cv2.GaussianBlur(enlarged, (0, 0), cell_px / 4)
    return enlarged.astype(np.float32, copy=False)


def _above_threshold(distance: Array, enlarged: Array) -> NDArray[np.bool_]:
    """Pixels above the threshold, and every connected group of cells of which smoothing left little or nothing."""
    rows, columns = enlarged.shape
    area: NDArray[np.bool_] = enlarged > 1
    cells = cv2.resize((distance > 1).astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
    count, labels = cv2.connectedComponents(cells)
    for label in range(1, count):
        group = labels == label
        if area[group].mean() < _SMALLEST_SHARE:
            area |= group
    return area


def _blend(image: Image, distance: Array) -> None:
    heat, opacity = _heat(distance)
    image[:] = np.rint(image + _OPACITY * opacity[..., None] * (heat.astype(np.float32) - image)).astype(np.uint8)


def _heat(distance: Array) -> tuple[Image, Array]:
    """Colour, and opacity from 0 to 1."""
    strength = np.clip((distance - _FAINTEST) / (_STRONGEST - _FAINTEST), 0.0, 1.0)
    shade = 255 * (_COLOUR_FROM + (_COLOUR_TO - _COLOUR_FROM) * strength)
    heat: Image = cv2.applyColorMap(shade.astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.uint8, copy=False)
    opacity = np.clip(3 * strength, 0.0, 1.0)
    return heat, opacity * opacity * (3 - 2 * opacity)


def _outline(image: Image, area: NDArray[np.bool_], line_px: int) -> None:
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.ascontiguousarray(image)  # OpenCV cannot draw into a view
    cv2.drawContours(drawn, contours, -1, _WHITE, 3 * line_px, cv2.LINE_AA)
    cv2.drawContours(drawn, contours, -1, _RED, line_px, cv2.LINE_AA)
    image[:] = drawn
