"""Alignment learned from good parts: their common reference, and how reliably a part is found by it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from calibration.errors import SettingError
from calibration.imaging.alignment import Alignment, Grid, find_peak
from calibration.imaging.orientation import edge_directions
from calibration.imaging.thinned_sample import ThinnedSample
from calibration.workstation.settings import AUTO_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.imaging.orientation import Directions
    from calibration.imaging.preprocess import Image
    from calibration.imaging.region import Region

    Mask = NDArray[np.bool_]

_AUTO_SHARE = 0.05
_FARTHEST_SHARE = 0.25
_WINDOWS_KEPT = 256
_ROUNDS = 10
_LEAST_IMAGES = 4
_SAME_LOCATION_CELLS = 1.5
_MISTAKEN_SHARE = 0.05
_FOUND_SHARE = 0.5
_RECOGNISED = 0.25


class AlignmentLearner:
    """Keeps a sample of the good images, in bounded memory, and learns from it how to align a part.

    Args:
        limit_px: Largest displacement that is followed, in frame pixels; ``AUTO_PX``: 5 % of the region's shorter side.
        region: Region of interest.

    Raises:
        SettingError: The limit makes no sense for this region.
    """

    def __init__(self, limit_px: int, region: Region) -> None:
        side = min(region.width, region.height)
        if not 0 <= limit_px <= _FARTHEST_SHARE * side:
            raise SettingError(
                what=f"--align {limit_px} makes no sense: a part displaced by more than a quarter of the region of "
                f"interest ({region.width}x{region.height} pixels) cannot be distinguished from another part",
                remedy=f"give at most {int(_FARTHEST_SHARE * side)} pixels, or `auto`",
            )
        self._limit_px = limit_px if limit_px != AUTO_PX else max(1, round(_AUTO_SHARE * side))
        self._region = region
        self._grid = Grid.of(region, self._limit_px)
        self._windows = ThinnedSample(_WINDOWS_KEPT)

    def add(self, image: Image) -> None:
        """Maybe keep a good image."""
        self._windows.offer(self._grid.window(image, self._region))

    def learned(self, ignored: NDArray[np.uint8], *, sequential: bool) -> Alignment:
        """The alignment that the images teach.

        Args:
            ignored: Not 0 where the network input is not inspected, (height, width).
            sequential: Neighbours resemble each other.
        """
        area = (ignored > 0).astype(np.float32)
        share = cv2.resize(area, (self._grid.columns, self._grid.rows), interpolation=cv2.INTER_AREA)
        # Two cells more: the direction of an edge is that of three, and a cell of the last row may lie a little askew.
        counted = np.asarray(cv2.dilate((share > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0)
        return learn_alignment(self._windows.images, self._grid, self._limit_px, counted, sequential=sequential)


class _Group(NamedTuple):
    """Aligned parts.

    Attributes:
        mean: Mean of their directions, (rows, columns, 2).
        offsets: Offset of each, (right, down), in cells, (n, 2); their median is 0.
    """

    mean: Directions
    offsets: NDArray[np.intp]


def learn_alignment(
    windows: Sequence[Image], grid: Grid, limit_px: int, counted: Mask, *, sequential: bool
) -> Alignment:
    """Align the parts with each other, and measure how reliably that works.

    Each part is moved to where it correlates most with the mean of all others, round after round. The limit for a
    frame is the prominence of a peak at which the reference of one half of the parts finds a part of the other half
    where its own half does, within a cell and a half, in 19 of 20 cases. Where fewer than half of the good parts reach
    it, nothing stands still, and the region is never moved.

    Args:
        windows: Windows of the good images, as ``Grid.window`` gives them; as directions they take eight times the
            memory.
        grid: Grid of the windows.
        limit_px: Largest displacement that is followed, in frame pixels.
        counted: Cells of the reference that count, (rows, columns).
        sequential: Neighbours resemble each other.
    """
    if len(windows) < _LEAST_IMAGES:
        return Alignment(np.zeros((grid.rows, grid.columns, 2), np.float32), limit_px, math.inf)
    directions = [edge_directions(window) for window in windows]
    reference = _aligned(directions, grid, counted).mean
    return Alignment(reference, limit_px, _least_prominence(directions, grid, counted, sequential=sequential))


def _aligned(directions: Sequence[Directions], grid: Grid, counted: Mask) -> _Group:
    offsets = np.zeros((len(directions), 2), np.intp)
    weight = counted[..., None].astype(np.float32)
    total = np.zeros((grid.rows, grid.columns, 2), np.float32)
    for _ in range(_ROUNDS):
        total[:] = sum(_part(each, offset, grid) for each, offset in zip(directions, offsets, strict=True))
        found = [
            find_peak(each, (total - _part(each, offset, grid)) * weight)[:2]
            for each, offset in zip(directions, offsets, strict=True)
        ]
        before, offsets = offsets, _centred(np.rint(found).astype(np.intp), grid.reach)
        if (before == offsets).all():
            break
    total[:] = sum(_part(each, offset, grid) for each, offset in zip(directions, offsets, strict=True))
    return _Group(total * weight / np.float32(len(directions)), offsets)


def _part(directions: Directions, offset: NDArray[np.intp], grid: Grid) -> Directions:
    left, top = offset + grid.reach
    return directions[top : top + grid.rows, left : left + grid.columns]


def _centred(offsets: NDArray[np.intp], reach: int) -> NDArray[np.intp]:
    """Half of the parts lie to the left of the region of interest and half to the right; likewise up and down."""
    return np.asarray(np.clip(offsets - np.rint(np.median(offsets, axis=0)).astype(np.intp), -reach, reach))


def _least_prominence(directions: Sequence[Directions], grid: Grid, counted: Mask, *, sequential: bool) -> float:
    """Prominence from which a peak is trusted; infinite if too few peaks reach it."""
    half = len(directions) // 2
    halves = (directions[:half], directions[half:]) if sequential else (directions[::2], directions[1::2])
    groups = [_aligned(each, grid, counted) for each in halves]
    prominence: list[float] = []
    mistaken: list[bool] = []
    for each, own, other in zip(halves, groups, groups[::-1], strict=True):
        peaks = np.array([find_peak(one, other.mean) for one in each])
        apart = peaks[:, :2] - own.offsets
        apart -= np.median(apart, axis=0)  # each half has a middle of its own
        prominence.extend(peaks[:, 2])
        mistaken.extend(np.abs(apart).max(axis=1) > _SAME_LOCATION_CELLS)
    return _limit(np.array(prominence), np.array(mistaken))


def _limit(prominence: NDArray[np.float64], mistaken: Mask) -> float:
    order = np.argsort(-prominence)
    share = np.cumsum(mistaken[order]) / np.arange(1, len(order) + 1)
    trusted = int(np.flatnonzero(np.append(0.0, share) <= _MISTAKEN_SHARE)[-1])
    if trusted < _FOUND_SHARE * len(order):
        return math.inf
    recognised = _RECOGNISED * float(np.median(prominence[order[:trusted]]))
    return recognised if trusted == len(order) else max(recognised, float(prominence[order[trusted]]))
