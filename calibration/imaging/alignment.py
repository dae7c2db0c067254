"""Where in the frame the part is: the good parts' structure, found again near the region of interest.

Orientation correlation (Fitch et al. 2002), as of ``Structure``: directions of edges, in which light and contrast
hardly count and a defect is a small part of the whole. The mean over the good parts, brought into line with each other,
is the reference; the place where it correlates most with the frame is that of the part. It counts as found if it stands
out from all other places as it does with good parts.
"""

from __future__ import annotations

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
_RING_CELLS = 6
NEAR_CELLS = 3


class PartLocation(NamedTuple):
    """Where the part is in one frame.

    Attributes:
        region: What is inspected: the region of interest, moved with the part.
        displacement: Of the part, (right, down), in frame pixels; None where it was not found.
        too_far: It is farther away than the limit; the region has stayed where it was.
    """

    region: Region
    displacement: tuple[int, int] | None = (0, 0)
    too_far: bool = False


class Grid(NamedTuple):
    """How the frame is seen when a part is looked for: in cells of whole pixels, at most 112 along the shorter side.

    Attributes:
        rows: Of the reference, in cells.
        columns: Of the reference.
        cell_px: Side of a cell, in frame pixels.
        reach: How far around the reference is looked, in cells: to the limit and a little beyond.
    """

    rows: int
    columns: int
    cell_px: int
    reach: int

    @classmethod
    def of(cls, region: Region, limit_px: int) -> Grid:
        """For a region of interest and the largest displacement."""
        cell_px = -(-min(region.width, region.height) // _CELLS)
        reach = -(-limit_px // cell_px) + _RING_CELLS
        return cls(region.height // cell_px, region.width // cell_px, cell_px, reach)

    def window(self, frame: Image, region: Region) -> Image:
        """The region and what is in reach around it, (rows + 2 reach, columns + 2 reach), grey."""
        margin = self.reach * self.cell_px
        rows, columns = self.rows + 2 * self.reach, self.columns + 2 * self.reach
        wide = Region(region.x - margin, region.y - margin, columns * self.cell_px, rows * self.cell_px)
        grey = to_grey(np.ascontiguousarray(crop_padded(frame, wide)))
        return np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


class Peak(NamedTuple):
    """Where a reference correlates most.

    Attributes:
        right: From the middle, in cells; fractions by a parabola.
        down: The same.
        prominence: By how much it is higher than any place farther than three cells from it; 1 is all of a reference.
    """

    right: float
    down: float
    prominence: float


def find_peak(seen: Directions, reference: Directions) -> Peak:
    """Where the reference is in a larger picture."""
    energy = max(float((reference.astype(np.float64) ** 2).sum()), 1e-9)
    correlation = np.asarray(cv2.matchTemplate(seen, reference, cv2.TM_CCORR), np.float32) / np.float32(energy)
    _, height, _, (x, y) = cv2.minMaxLoc(correlation)
    rows, columns = correlation.shape
    right = x + _vertex(correlation[y, max(0, x - 1) : x + 2]) - columns // 2
    down = y + _vertex(correlation[max(0, y - 1) : y + 2, x]) - rows // 2
    top, left = max(0, y - NEAR_CELLS), max(0, x - NEAR_CELLS)
    correlation[top : y + NEAR_CELLS + 1, left : x + NEAR_CELLS + 1] = -np.inf
    return Peak(right, down, height - float(correlation.max()))


def _vertex(heights: NDArray[np.floating]) -> float:
    """Of the parabola through three neighbours, from the middle one; at the border the highest itself."""
    if len(heights) < 3:  # noqa: PLR2004
        return 0.0
    before, here, after = map(float, heights)
    bend = before - 2.0 * here + after
    return 0.5 * (before - after) / bend if bend < 0.0 else 0.0


class Alignment:
    """Moves the region of interest with the part.

    Args:
        reference: Mean directions of the good parts, (rows, columns, 2); nothing of it where it is ignored.
        limit_px: Largest displacement along each side of the frame that is followed, in frame pixels.
        least_prominence: Of a peak that is believed; infinite where nothing stands still, and no region is moved.
    """

    def __init__(self, reference: Directions, limit_px: int, least_prominence: float) -> None:
        self.reference = reference
        self.limit_px = limit_px
        self.least_prominence = least_prominence

    @property
    def is_on(self) -> bool:
        """Whether there is anything to align by."""
        return bool(np.isfinite(self.least_prominence))

    def __call__(self, frame: Image, region: Region) -> PartLocation:
        """Where the part is. A region that follows it beyond the frame's border is filled with that border.

        Args:
            frame: Of the size that calibration saw.
            region: Of interest; where the good parts were, on average.
        """
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
