"""Locate the part in the frame, so that the region of interest follows it.

Orientation correlation (Fitch et al. 2002) compares directions of edges, see ``orientation``: light and contrast hardly
matter, and a defect is a small share of the whole. The reference is the mean over registered good parts. The part is
where it correlates best with the frame, provided that the peak stands out as it does with good parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from calibration.imaging.orientation import edge_directions
from calibration.imaging.region import Region, crop_padded, to_grey

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.orientation import Directions
    from calibration.imaging.region import Image

_CELLS = 112
_MARGIN_CELLS = 6
_PEAK_RADIUS_CELLS = 3


class PartLocation(NamedTuple):
    """Where the part is in one frame.

    Attributes:
        region: The region to inspect: the region of interest, moved with the part.
        displacement: Of the part, (right, down), in frame pixels; None if it was not found.
        too_far: The displacement exceeds the limit; the region was not moved.
    """

    region: Region
    displacement: tuple[int, int] | None = (0, 0)
    too_far: bool = False


class Grid(NamedTuple):
    """The resolution of the search: cells of whole pixels, at most 112 along the region's shorter side.

    Attributes:
        rows, columns: Size of the reference, in cells.
        cell_px: Side of a cell, in frame pixels.
        reach: Search distance, in cells: the limit and a small margin.
    """

    rows: int
    columns: int
    cell_px: int
    reach: int

    @classmethod
    def of(cls, region: Region, limit_px: int) -> Grid:
        """The grid for a region of interest and the largest displacement."""
        cell_px = -(-min(region.width, region.height) // _CELLS)
        reach = -(-limit_px // cell_px) + _MARGIN_CELLS
        return cls(region.height // cell_px, region.width // cell_px, cell_px, reach)

    def window(self, frame: Image, region: Region) -> Image:
        """The region and its surroundings within reach, (rows + 2 reach, columns + 2 reach), grey."""
        margin = self.reach * self.cell_px
        rows, columns = self.rows + 2 * self.reach, self.columns + 2 * self.reach
        wide = Region(region.x - margin, region.y - margin, columns * self.cell_px, rows * self.cell_px)
        grey = to_grey(np.ascontiguousarray(crop_padded(frame, wide)))
        return np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


class Peak(NamedTuple):
    """The highest correlation: its displacement from the middle, in cells with fractions, and its prominence.

    Prominence is the height above the highest value more than three cells away; 1 is a perfect match over nothing.
    """

    right: float
    down: float
    prominence: float


def find_peak(window: Directions, reference: Directions) -> Peak:
    """Find the reference in a larger window."""
    energy = max(float((reference.astype(np.float64) ** 2).sum()), 1e-9)
    correlation = np.asarray(cv2.matchTemplate(window, reference, cv2.TM_CCORR), np.float32) / np.float32(energy)
    _, height, _, (x, y) = cv2.minMaxLoc(correlation)
    rows, columns = correlation.shape
    right = x + _vertex(correlation[y, max(0, x - 1) : x + 2]) - columns // 2
    down = y + _vertex(correlation[max(0, y - 1) : y + 2, x]) - rows // 2
    top, left = max(0, y - _PEAK_RADIUS_CELLS), max(0, x - _PEAK_RADIUS_CELLS)
    correlation[top : y + _PEAK_RADIUS_CELLS + 1, left : x + _PEAK_RADIUS_CELLS + 1] = -np.inf
    return Peak(right, down, height - float(correlation.max()))


def _vertex(heights: NDArray[np.floating]) -> float:
    """Vertex of the parabola through three neighbours, relative to the middle one; 0 at the border."""
    if len(heights) < 3:  # noqa: PLR2004
        return 0.0
    before, here, after = map(float, heights)
    bend = before - 2.0 * here + after
    return 0.5 * (before - after) / bend if bend < 0.0 else 0.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """Moves the region of interest with the part.

    Attributes:
        reference: Mean edge directions of the good parts, (rows, columns, 2); zero in ignored areas.
        limit_px: Largest displacement to follow, along each side of the frame, in frame pixels.
        least_prominence: A peak must exceed it; infinite if the good parts share no fixed structure, and then the
            region is never moved.
    """

    reference: Directions
    limit_px: int
    least_prominence: float

    @property
    def is_on(self) -> bool:
        """Whether there is anything to align by."""
        return bool(np.isfinite(self.least_prominence))

    def __call__(self, frame: Image, region: Region) -> PartLocation:
        """Locate the part near the region of interest; the returned region may reach beyond the frame."""
        if not self.is_on:
            return PartLocation(region, None)
        grid = Grid.of(region, self.limit_px)
        peak = find_peak(edge_directions(grid.window(frame, region)), self.reference)
        if peak.prominence <= self.least_prominence:
            return PartLocation(region, None)
        right, down = round(peak.right * grid.cell_px), round(peak.down * grid.cell_px)
        if max(abs(right), abs(down)) > self.limit_px:
            return PartLocation(region, (right, down), too_far=True)
        return PartLocation(region.moved(right, down), (right, down))
