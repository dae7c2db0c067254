"""The score map laid over the picture it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def covering(score_map: NDArray[np.float32], averaging: int) -> NDArray[np.float32]:
    """The map in half cells of the feature grid, so that it covers the region of interest from edge to edge.

    Averaging without padding leaves a map that is ``averaging`` - 1 cells smaller than the grid and centred in it;
    stretched as it is, it would show defects in the wrong place.

    Args:
        score_map: (h, w).
        averaging: Side of the averaging region, in grid cells.

    Returns:
        (2 h', 2 w'), where (h', w') is the grid; border values are repeated outward.
    """
    return np.pad(score_map.repeat(2, axis=0).repeat(2, axis=1), averaging - 1, mode="edge")
