"""The good parts brought into line with each other, and whether that can be relied on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from calibration.imaging.alignment import Alignment, find_peak
from calibration.imaging.orientation import edge_directions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.imaging.alignment import Grid
    from calibration.imaging.orientation import Directions
    from calibration.imaging.preprocess import Image

_ROUNDS = 10
_LEAST_IMAGES = 4
_SAME_PLACE_CELLS = 1.5
_MISTAKEN_SHARE = 0.05
_FOUND_SHARE = 0.5
_RECOGNISED = 0.25


class _Group(NamedTuple):
    """Parts in line.

    Attributes:
        mean: Of their directions, (rows, columns, 2).
        offsets: Of each, (right, down), in cells, (n, 2); their median is 0.
    """

    mean: Directions
    offsets: NDArray[np.intp]


def registered(
    windows: Sequence[Image], grid: Grid, limit_px: int, judged: NDArray[np.bool_], *, sequential: bool
) -> Alignment:
    """The alignment that good parts teach.

    Each part is moved to where it correlates most with the mean of all others, round after round, from where they lie.
    The limit for a frame comes from halves: how prominent the peak has to be so that a part is found by the reference
    of the other half where its own half found it, within a cell and a half, in 19 of 20 cases. Where that leaves out
    half of the good parts nothing stands still, and no region will be moved.

    Args:
        windows: Of the good frames, as ``Grid.window`` gives them; their memory as directions is eightfold.
        grid: Theirs.
        limit_px: Largest displacement that is followed, in frame pixels.
        judged: What counts of the reference, (rows, columns).
        sequential: Neighbours resemble each other.
    """
    if len(windows) < _LEAST_IMAGES:
        return Alignment(np.zeros((grid.rows, grid.columns, 2), np.float32), limit_px, math.inf)
    seen = [edge_directions(window) for window in windows]
    reference = _in_line(seen, grid, judged).mean
    return Alignment(reference, limit_px, _least_prominence(seen, grid, judged, sequential=sequential))


def _in_line(seen: Sequence[Directions], grid: Grid, judged: NDArray[np.bool_]) -> _Group:
    offsets = np.zeros((len(seen), 2), np.intp)
    weight = judged[..., None].astype(np.float32)
    total = np.zeros((grid.rows, grid.columns, 2), np.float32)
    for _ in range(_ROUNDS):
        total[:] = sum(_part(each, offset, grid) for each, offset in zip(seen, offsets, strict=True))
        found = [
            find_peak(each, (total - _part(each, offset, grid)) * weight)[:2]
            for each, offset in zip(seen, offsets, strict=True)
        ]
        before, offsets = offsets, _centred(np.rint(found).astype(np.intp), grid.reach)
        if (before == offsets).all():
            break
    total[:] = sum(_part(each, offset, grid) for each, offset in zip(seen, offsets, strict=True))
    return _Group(total * weight / np.float32(len(seen)), offsets)


def _part(seen: Directions, offset: NDArray[np.intp], grid: Grid) -> Directions:
    left, top = offset + grid.reach
    return seen[top : top + grid.rows, left : left + grid.columns]


def _centred(offsets: NDArray[np.intp], reach: int) -> NDArray[np.intp]:
    """Half of the parts lie to the left of the region of interest and half to the right, and so up and down."""
    return np.asarray(np.clip(offsets - np.rint(np.median(offsets, axis=0)).astype(np.intp), -reach, reach))


def _least_prominence(seen: Sequence[Directions], grid: Grid, judged: NDArray[np.bool_], *, sequential: bool) -> float:
    """Of a peak that is believed; infinite if so few are that nothing stands still."""
    half = len(seen) // 2
    halves = (seen[:half], seen[half:]) if sequential else (seen[::2], seen[1::2])
    groups = [_in_line(each, grid, judged) for each in halves]
    prominence: list[float] = []
    mistaken: list[bool] = []
    for each, own, other in zip(halves, groups, groups[::-1], strict=True):
        peaks = np.array([find_peak(one, other.mean) for one in each])
        apart = peaks[:, :2] - own.offsets
        apart -= np.median(apart, axis=0)  # each half has a middle of its own
        prominence.extend(peaks[:, 2])
        mistaken.extend(np.abs(apart).max(axis=1) > _SAME_PLACE_CELLS)
    return _limit(np.array(prominence), np.array(mistaken))


def _limit(prominence: NDArray[np.float64], mistaken: NDArray[np.bool_]) -> float:
    order = np.argsort(-prominence)
    share = np.cumsum(mistaken[order]) / np.arange(1, len(order) + 1)
    believed = int(np.flatnonzero(np.append(0.0, share) <= _MISTAKEN_SHARE)[-1])
    if believed < _FOUND_SHARE * len(order):
        return math.inf
    recognised = _RECOGNISED * float(np.median(prominence[order[:believed]]))
    return recognised if believed == len(order) else max(recognised, float(prominence[order[believed]]))
