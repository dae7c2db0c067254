"""The score map laid over the picture it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cover_region(score_map: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The map in half cells of the feature grid, so that it covers the region of interest from edge to edge.

    Reduction without padding leaves a map that is smaller than the grid and centred in it; stretched as it is, it
    would show defects in the wrong place. A map of one cell, of a method that does not say where, covers all.
    One that is larger than the grid, of a method that says it for each pixel, covers the region as it is.

    Args:
        score_map: (h, w).
        grid: (h', w') of the features.

    Returns:
        (2 h', 2 w'), or (2 h, 2 w) of a larger map; border values are repeated outward.
    """
    borders = [(max(0, whole - part),) * 2 for whole, part in zip(grid, score_map.shape, strict=True)]
    return np.pad(score_map.repeat(2, axis=0).repeat(2, axis=1), borders, mode="edge")
