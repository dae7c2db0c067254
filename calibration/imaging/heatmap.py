"""The frame with the heat of its defects: what a person looks at."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.imaging.region import Image, Region, crop, whole_frame

Array: TypeAlias = NDArray[np.float32]
Colour: TypeAlias = tuple[int, int, int]

# In distances (roots of scores) relative to the threshold: where the colour begins, and where it is strongest.
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
    """The frame with the heat of the score map over the region, and a contour around what is above the threshold.

    Whenever a place of the map is above the threshold, there is a contour.

    Args:
        frame: (rows, columns, 3), uint8, BGR; not changed.
        region: What the score map covers, from edge to edge, also outside the frame; None is the whole frame.
        score_map: (h, w), squared distances, any resolution; places that are not finite stay bare.
        threshold: Of the score, positive.

    Returns:
        (rows, columns, 3), uint8, BGR.

    Raises:
        DatasetError: The region is nowhere in the frame.
    """
    picture: Image = frame.copy()
    covered = region or whole_frame(frame)
    visible = covered.clipped(*frame.shape[:2])
    inspected, of_map = crop(picture, visible), visible.moved(-covered.x, -covered.y)
    line_px = max(1, round(min(picture.shape[:2]) / 400))
    if region is not None:
        corner = (region.x + region.width - 1, region.y + region.height - 1)
        cv2.rectangle(picture, (region.x, region.y), corner, _LIGHT, line_px)
    distance = _relative_distance(score_map, threshold)
    enlarged = _enlarged(distance, covered.height, covered.width)
    _blend(inspected, crop(enlarged, of_map))
    if distance.max() > 1:
        _outline(inspected, crop(_above(distance, enlarged), of_map), line_px)
    return picture


def heat_layer(score_map: Array, threshold: float, rows: int, columns: int) -> Image:
    """The heat alone, to be laid over the region by somebody else: its transparency is where there is none.

    Args:
        score_map: As for ``overlay``.
        threshold: Of the score, positive.
        rows: Of the layer.
        columns: Of the layer.

    Returns:
        (rows, columns, 4), uint8, BGR and opacity, which is 255 where the heat is plain to see.
    """
    heat, visible = _heat(_enlarged(_relative_distance(score_map, threshold), rows, columns))
    layer: Image = np.dstack([heat * (visible > 0)[..., None], np.rint(255 * visible).astype(np.uint8)])
    return layer


def display_threshold(score_map: Array, threshold: float) -> float:
    """What to give ``overlay`` for a picture that may be below the threshold.

    Its own highest place then, so that the heat shows where that is; nothing is outlined.
    """
    return max(min(threshold, float(score_map.max())), float(np.finfo(np.float32).tiny))


def hatched(picture: Image, area: NDArray[np.bool_]) -> Image:
    """The picture with an area of it hatched; the area may be of another size."""
    rows, columns = picture.shape[:2]
    inside = cv2.resize(area.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0
    step_px = max(4, min(rows, columns) // 32)
    down, right = np.indices((rows, columns))
    light, dark = ((down + right + shift) % step_px < max(1, step_px // 4) for shift in (0, step_px // 2))
    drawn: Image = picture.copy()
    drawn[inside & light], drawn[inside & dark] = _WHITE, _BLACK
    return drawn


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
    """Pixels above the threshold, and the whole of each place of which the smoothing left nothing, or a speck."""
    rows, columns = enlarged.shape
    area: NDArray[np.bool_] = enlarged > 1
    places = cv2.resize((distance > 1).astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
    count, labels = cv2.connectedComponents(places)
    for label in range(1, count):
        place = labels == label
        if area[place].mean() < _SMALLEST_SHARE:
            area |= place
    return area


def _blend(picture: Image, distance: Array) -> None:
    heat, visible = _heat(distance)
    opacity = (_OPACITY * visible)[..., None]
    picture[:] = np.rint(picture + opacity * (heat.astype(np.float32) - picture)).astype(np.uint8)


def _heat(distance: Array) -> tuple[Image, Array]:
    """Colour, and how much of it is to be seen, 0 to 1."""
    strength = np.clip((distance - _FAINTEST) / (_STRONGEST - _FAINTEST), 0.0, 1.0)
    shade = 255 * (_COLOUR_FROM + (_COLOUR_TO - _COLOUR_FROM) * strength)
    heat: Image = cv2.applyColorMap(shade.astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.uint8, copy=False)
    visible = np.clip(3 * strength, 0.0, 1.0)
    return heat, visible * visible * (3 - 2 * visible)


def _outline(picture: Image, area: NDArray[np.bool_], line_px: int) -> None:
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Drawn on a copy: OpenCV does not draw into a part of a picture.
    drawn = np.ascontiguousarray(picture)
    cv2.drawContours(drawn, contours, -1, _WHITE, 3 * line_px, cv2.LINE_AA)
    cv2.drawContours(drawn, contours, -1, _RED, line_px, cv2.LINE_AA)
    picture[:] = drawn
