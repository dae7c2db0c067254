"""Whether what a camera sees stands still, against the camera's own noise.

    cells   mean colour of small squares, which averages noise away
    change  what 99 % of the cells do not exceed, after the light of both pictures is made equal
    moving  the change is several times what it is while nothing moves; that is learnt on the way

A part that covers less than a hundredth of the inspected region is not seen, nor one that has its colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration import frame_statistics

if TYPE_CHECKING:
    from calibration.preprocess import Image

Cells: TypeAlias = NDArray[np.float32]

_CELLS = 32
_SHARE = 0.99
_TIMES_NOISE = 4.0
_LEAST_NOISE = 0.5  # grey levels: what rounding to whole ones does to a picture without noise
_FALL, _RISE = 0.7, 1.05
_FORGETTING = 0.05


def cells_of(inspected: Image) -> Cells:
    """Mean colour of each cell, (rows, columns, 3), grey levels; about 32 cells along the shorter side."""
    height, width = inspected.shape[:2]
    side = max(1, round(min(height, width) / _CELLS))
    rows, columns = height // side, width // side
    whole = inspected[: rows * side, : columns * side]  # over whole pixels OpenCV does it several times as fast
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)


def _change(before: Cells, now: Cells) -> float:
    apart = np.abs(now - frame_statistics.relit(before, now)).ravel()
    place = int(_SHARE * (apart.size - 1))
    return float(np.partition(apart, place)[place])


class Stillness:
    """Since when the picture is the same.

    It is held against the first picture of those that are the same, not against the one before: else a slow part would
    stand still between any two frames.

    Attributes:
        since_ns: Time of that first picture; None before any.
    """

    def __init__(self) -> None:
        self.since_ns: int | None = None
        self._first = self._before = np.empty((0, 0, 3), np.float32)
        self._noise = float("inf")

    def goes_on(self, cells: Cells, now_ns: int) -> bool:
        """Whether this picture, the next one, is still the same; one of another size begins anew."""
        if self.since_ns is None or self._first.shape != cells.shape:
            self._first, self._before, self.since_ns = cells, cells, now_ns
            return True
        fluctuation, self._before = _change(self._before, cells), cells
        if fluctuation < self._noise:
            self._noise = max(fluctuation, _FALL * self._noise) if np.isfinite(self._noise) else fluctuation
        is_same = _change(self._first, cells) <= _TIMES_NOISE * max(self._noise, _LEAST_NOISE)
        if is_same:
            # Up only now, and slowly: what moves must not become the measure of what does not.
            self._noise = max(self._noise, min(fluctuation, _RISE * self._noise))
            self._first = self._first + np.float32(_FORGETTING) * (cells - self._first)  # daylight is slow
        else:
            self._first, self.since_ns = cells, now_ns
        return is_same
