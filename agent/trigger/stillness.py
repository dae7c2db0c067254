"""Whether what a camera sees stands still, against the camera's own noise.

    cells   mean colour of small squares, which averages noise away
    change  what 99 % of the cells do not exceed, after the light of both pictures is made equal
    noise   the change from one picture to the next while nothing moves; learnt on the way
    still   the change is at most four times that
    moved   it was more than eight times that: in between are key frames of a video, say, which are no part

A part that covers less than a hundredth of the inspected region is not seen, nor one that has its colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera_checks import frame_statistics

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

Cells: TypeAlias = NDArray[np.float32]

_CELLS = 32
_SHARE = 0.99
_STILL, _MOVED = 4.0, 8.0
_LEAST_NOISE = 0.5  # grey levels: what rounding to whole ones does to a picture without noise
_FALL, _RISE = 0.7, 1.05
_FORGETTING = 0.02


def cells_of(inspected: Image) -> Cells:
    """Mean colour of each cell, (rows, columns, 3), grey levels; about 32 cells along the shorter side."""
    height, width = inspected.shape[:2]
    side = max(1, round(min(height, width) / _CELLS))
    rows, columns = height // side, width // side
    whole = inspected[: rows * side, : columns * side]  # over whole pixels OpenCV does it several times as fast
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)


def _change(before: Cells, now: Cells) -> float:
    apart = np.abs(now - frame_statistics.match_light(before, now)).ravel()
    place = int(_SHARE * (apart.size - 1))
    return float(np.partition(apart, place)[place])


class Stillness:
    """Whether something has moved, and since when the picture is the same.

    Neither is told from the picture before: a slow part would stand still between any two. What is still is held
    against the first of the pictures that are, what has moved against the one that had settled.

    Attributes:
        has_moved: Since it had settled.
        since_ns: Time of the first of the pictures that are the same; None before any.
    """

    def __init__(self) -> None:
        self.has_moved = False
        self.since_ns: int | None = None
        self._before = self._first = self._settled = np.empty((0, 0, 3), np.float32)
        self._noise = float("inf")
        self._largest = 0.0

    def goes_on(self, cells: Cells, now_ns: int) -> bool:
        """Whether this picture, the next one, is still the same; one of another size begins anew."""
        if self.since_ns is None or self._first.shape != cells.shape:
            self._before = self._first = self._settled = cells
            self.since_ns = now_ns
            return True
        change, self._before = _change(self._before, cells), cells
        self._noise = min(self._noise, max(change, _FALL * self._noise if np.isfinite(self._noise) else 0.0))
        is_same = self._is_within(_STILL, self._first, cells)
        if is_same:
            # Up only now, and slowly: what moves must not become the measure of what does not.
            self._noise = max(self._noise, min(change, _RISE * self._noise))
        else:
            self._first, self.since_ns = cells, now_ns
        self._largest = max(change, (1 - _FORGETTING) * self._largest)  # at the start motion may be taken for noise
        if self._largest > _MOVED * self._floor or not self._is_within(_MOVED, self._settled, cells):
            self.has_moved = True
        elif not self.has_moved:
            # Daylight is slower than any part.
            self._settled = self._settled + np.float32(_FORGETTING) * (cells - self._settled)
        return is_same

    def settle(self) -> None:
        """From now on what differs from the last picture has moved."""
        self.has_moved, self._settled, self._largest = False, self._before, 0.0

    def _is_within(self, times: float, picture: Cells, cells: Cells) -> bool:
        return _change(picture, cells) <= times * self._floor

    @property
    def _floor(self) -> float:
        return max(self._noise, _LEAST_NOISE)
