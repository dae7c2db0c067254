"""Relates the score map to the region it was computed from."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def map_threshold(score_map: NDArray[np.float32], score: float, threshold: float) -> float:
    """The threshold of a score for the places of its map, which may all be lower than the score if it was smoothed.

    It then is as far below the map's peak as the threshold is below the score, so that a defect has a place.
    """
    peak = float(score_map.max())
    return threshold * peak / score if 0 < peak < score < inf else threshold


def cover_region(score_map: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The score map (h, w) in half cells, its border repeated outward to cover the feature grid (h', w').

    The result, (2 max(h, h'), 2 max(w, w')), covers the region of interest from edge to edge. Reduction without
    padding leaves a map that is smaller than the grid and centred in it; stretching it would misplace defects.
    """
    borders = [(max(0, whole - part),) * 2 for whole, part in zip(grid, score_map.shape, strict=True)]
    return np.pad(score_map.repeat(2, axis=0).repeat(2, axis=1), borders, mode="edge")
