"""Ways to find a displaced part: how far off each is, under what a line does to its pictures, and how long it takes.

All see the same: cells of two pixels, and the mean of the same taught parts in line. An error is the difference between
the displacement found and the one made, along the worse side of the frame, against the same part where it was.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import alignment as shown
import cv2
import mtd
import numpy as np
from rich import box
from rich.table import Table

from calibration.imaging.alignment import Grid, _vertex, find_peak
from calibration.imaging.orientation import edge_directions
from calibration.workstation.fit.learn_preprocess import learn_preprocess
from calibration.workstation.settings import PreprocessRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image, Preprocess, Region

    Found = tuple[float, float]

TAUGHT, TESTED = 100, 100
REACH_PX = 15
FARTHEST_PX = 10
_ECC = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)


class Methods:
    """Of one reference; each takes the grey window and gives the displacement in cells."""

    def __init__(self, grid: Grid, taught: list[Image]) -> None:
        self._grid = grid
        self._inner = np.s_[grid.reach : grid.reach + grid.rows, grid.reach : grid.reach + grid.columns]
        self._grey = np.mean([each[self._inner] for each in taught], axis=0).astype(np.float32)
        steep = [_steepness(each)[self._inner] for each in taught]
        self._steep = np.mean(steep, axis=0).astype(np.float32)
        self._directions = np.mean([edge_directions(each)[self._inner] for each in taught], axis=0).astype(np.float32)
        self._window = cv2.createHanningWindow((grid.columns, grid.rows), cv2.CV_32F)

    def orientation(self, window: Image) -> Found:
        """Orientation correlation, as ``Alignment`` does."""
        return find_peak(edge_directions(window), self._directions)[:2]

    def gradients(self, window: Image) -> Found:
        """Template matching of the steepness of edges."""
        return self._matched(_steepness(window), self._steep)

    def grey(self, window: Image) -> Found:
        """Template matching of grey levels."""
        return self._matched(window.astype(np.float32), self._grey)

    def phase(self, window: Image) -> Found:
        """Phase correlation of the steepness of edges."""
        (x, y), _ = cv2.phaseCorrelate(self._steep, _steepness(window)[self._inner], self._window)
        return x, y

    def ecc(self, window: Image) -> Found:
        """Enhanced correlation coefficient (Evangelidis and Psarakis 2008)."""
        moved = np.eye(2, 3, dtype=np.float32)
        try:
            cv2.findTransformECC(
                self._grey,
                window[self._inner].astype(np.float32),
                moved,
                cv2.MOTION_TRANSLATION,
                _ECC,
                None,  # type: ignore[call-overload]  # OpenCV takes the whole image then; its stub does not say so
                3,
            )
        except cv2.error:  # it does not converge
            return 0.0, 0.0
        return float(moved[0, 2]), float(moved[1, 2])

    def _matched(self, seen: NDArray[np.float32], template: NDArray[np.float32]) -> Found:
        correlation = np.asarray(cv2.matchTemplate(seen, template, cv2.TM_CCOEFF_NORMED), np.float32)
        _, _, _, (x, y) = cv2.minMaxLoc(correlation)
        across, down = correlation[y, max(0, x - 1) : x + 2], correlation[max(0, y - 1) : y + 2, x]
        return x + _vertex(across) - self._grid.reach, y + _vertex(down) - self._grid.reach


def _steepness(window: Image) -> NDArray[np.float32]:
    return np.asarray(np.sqrt((edge_directions(window) ** 2).sum(axis=2)), np.float32)


def _as_it_is(frame: Image, _random: np.random.Generator) -> Image:
    return frame


def _light(frame: Image, _random: np.random.Generator) -> Image:
    slope = np.linspace(-20, 20, frame.shape[1])[None, :, None]
    return np.asarray(np.clip(frame * 1.25 + slope, 0, 255), np.uint8)


def _noise(frame: Image, random: np.random.Generator) -> Image:
    return np.asarray(np.clip(frame + random.normal(0, 8, frame.shape), 0, 255), np.uint8)


def _defect(frame: Image, random: np.random.Generator) -> Image:
    pasted: Image = frame.copy()
    x, y = random.integers(80, 140, 2)
    pasted[y : y + 45, x : x + 45] = random.integers(0, 256)
    return pasted


DISTURBANCES: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "none": _as_it_is,
    "light +25 % and a slope": _light,
    "noise of 8 levels": _noise,
    "patch of 45 x 45 pixels": _defect,
}


def _taught(data: shown.Parts, preprocess: Preprocess, grid: Grid) -> Methods:
    taught = shown.Shown(data.good[:TAUGHT], np.zeros((len(data.good[:TAUGHT]), 2), np.int64))
    aligned = learn_preprocess(taught, preprocess, PreprocessRequest(data.align_px), lambda *_: None)
    return Methods(grid, [grid.window(image, aligned.locate(image).region) for _, image in taught])


def main() -> None:
    """Print the table."""
    table = Table("method", "disturbance", "median px", "p95 px", "over 1 px", "ms", box=box.MARKDOWN)
    data = shown.flanges()
    tested = [picture for picture, defective in zip(data.test, data.defective, strict=True) if not defective][:TESTED]
    (_, first), *_ = shown.Shown(data.good[:1], np.zeros((1, 2), np.int64))
    preprocess = shown.preprocess_for(first)
    region: Region | None = preprocess.region
    assert region is not None
    grid = Grid.of(region, REACH_PX)
    methods = _taught(data, preprocess, grid)
    for name in ("orientation", "gradients", "grey", "phase", "ecc"):
        method = getattr(methods, name)
        for disturbance, disturbed in DISTURBANCES.items():
            random = np.random.default_rng(0)
            shifts = random.integers(-FARTHEST_PX, FARTHEST_PX, (len(tested), 2), endpoint=True)
            errors, times_ms = [], []
            still = shown.Shown(tested, np.zeros_like(shifts))
            for (_, at_rest), (_, moved), shift in zip(still, shown.Shown(tested, shifts), shifts, strict=True):
                before = method(grid.window(at_rest, region))
                frame = np.ascontiguousarray(disturbed(moved, random))
                began_s = time.perf_counter()
                found = method(grid.window(frame, region))
                times_ms.append(1e3 * (time.perf_counter() - began_s))
                errors.append(np.abs((np.array(found) - before) * grid.cell_px - shift).max())
            figures = (
                np.median(errors),
                np.quantile(errors, 0.95),
                np.mean(np.array(errors) > 1.0),
                np.median(times_ms),
            )
            table.add_row(name, disturbance, *(f"{figure:.2f}" for figure in figures))
    mtd.console.print(table)


if __name__ == "__main__":
    main()
