"""Whether the camera sees motion, measured against its own noise.

    cells   mean colour of small squares, which averages noise away
    change  what 99 % of the cells do not exceed, after the brightness of both images is made equal
    noise   the change from one image to the next while nothing moves, estimated on the way
    still   the change is at most four times the noise
    moved   the change was above eight times the noise; between the two lie, for example, key frames of a video

A part that covers less than a hundredth of the inspected region, or that has its colour, is not seen.
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
_LEAST_NOISE = 0.5  # grey levels: the effect of rounding to whole ones on an image without noise
_FALL, _RISE = 0.7, 1.05
_FORGETTING = 0.02


def cells_of(inspected: Image) -> Cells:
    """Mean colour of each cell, (rows, columns, 3), grey levels; about 32 cells along the shorter side."""
    height, width = inspected.shape[:2]
    side = max(1, round(min(height, width) / _CELLS))
    rows, columns = height // side, width // side
    whole = inspected[: rows * side, : columns * side]  # OpenCV is several times as fast over whole pixels
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)


def _change(before: Cells, now: Cells) -> float:
    difference = np.abs(now - frame_statistics.match_light(before, now)).ravel()
    index = int(_SHARE * (difference.size - 1))
    return float(np.partition(difference, index)[index])


def alike(cells: Cells, other: Cells) -> bool:
    """Whether two images show the same, by a camera whose noise is not known."""
    return cells.shape == other.shape and _change(cells, other) <= _MOVED * _LEAST_NOISE


class Stillness:
    """Whether something has moved, and since when the image is the same.

    Neither is decided by the previous image alone, between any two of which a slow part stands still: a still image is
    compared with the first of the still ones, a moved one with the image that had settled.

    Attributes:
        has_moved: Whether something has moved since the last `settle`.
        since_ns: Time of the first of the images that are the same; None before any.
    """

    def __init__(self) -> None:
        self.has_moved = False
        self.since_ns: int | None = None
        self._before = self._first = self._settled = np.empty((0, 0, 3), np.float32)
        self._noise = float("inf")
        self._largest = 0.0

    def update(self, cells: Cells, now_ns: int) -> bool:
        """Whether the next image is still the same; an image of another size starts again."""
        if self.since_ns is None or self._first.shape != cells.shape:
            self._before = self._first = self._settled = cells
            self.since_ns = now_ns
            return True
        change, self._before = _change(self._before, cells), cells
        self._noise = min(self._noise, max(change, _FALL * self._noise if np.isfinite(self._noise) else 0.0))
        is_same = self._is_within(_STILL, self._first, cells)
        if is_same:
            # The noise rises only now, and slowly: motion must not be taken for noise.
            self._noise = max(self._noise, min(change, _RISE * self._noise))
        else:
            self._first, self.since_ns = cells, now_ns
        self._largest = max(change, (1 - _FORGETTING) * self._largest)  # at the start motion may be taken for noise
        if self._largest > _MOVED * self._floor or not self._is_within(_MOVED, self._settled, cells):
            self.has_moved = True
        elif not self.has_moved:
            # Follows daylight, which is slower than any part.
            self._settled = self._settled + np.float32(_FORGETTING) * (cells - self._settled)
        return is_same

    def settle(self) -> None:
        """Measure motion against the last image from now on."""
        self.has_moved, self._settled, self._largest = False, self._before, 0.0

    def resembles(self, other: Cells) -> bool:
        """Whether the last image is like another one, so that nothing has come or gone between the two."""
        return other.shape == self._before.shape and self._is_within(_MOVED, other, self._before)

    def _is_within(self, times: float, reference: Cells, cells: Cells) -> bool:
        return _change(reference, cells) <= times * self._floor

    @property
    def _floor(self) -> float:
        return max(self._noise, _LEAST_NOISE)
