"""Score maps enlarged to pixels and blurred, as PatchCore and PaDiM publish them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Bilinear enlargement, then a Gaussian blur. Both are linear: one matrix for the rows and one for the columns.

    Attributes:
        size: Height and width of the result.
        sigma: Of the Gaussian, in cells of the result; 0: no blur. It ends at four sigma and is mirrored at the border.
        stride: Cells of the feature grid from one cell of the map to the next; the first is in the corner.
    """

    size: tuple[int, int]
    sigma: float
    stride: int = 1

    def matrices(self, grid: tuple[int, int]) -> tuple[Float32, Float32]:
        """Matrices A and B, (H, h) and (w, W), of the result A M B for a map M of this grid, (h, w)."""
        rows, columns = (
            _matrix(source, target, self.sigma, self.stride) for source, target in zip(grid, self.size, strict=True)
        )
        return rows, np.ascontiguousarray(columns.T)

    def __call__(self, maps: Float32) -> Float32:
        """Maps (n, h, w) as (n, H, W)."""
        rows, columns = self.matrices((maps.shape[1], maps.shape[2]))
        smoothed: Float32 = np.matmul(np.matmul(rows, maps), columns)
        return smoothed


@lru_cache(maxsize=8)
def _matrix(source: int, target: int, sigma: float, stride: int) -> Float32:
    """(target, source): interpolation between the centres of cells, then the blur; each row adds up to 1."""
    centres = (np.arange(target) + 0.5) * source * stride / target - 0.5
    positions = np.clip(centres / stride, 0, source - 1)
    cells = np.arange(source)
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - cells))
    if sigma > 0:
        weights = _blur(target, sigma) @ weights
    matrix: Float32 = weights.astype(np.float32)
    return matrix


def _blur(side: int, sigma: float) -> NDArray[np.float64]:
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    kernel /= kernel.sum()
    mirrored = np.pad(np.arange(side), reach, mode="symmetric")
    matrix = np.zeros((side, side))
    for row in range(side):
        np.add.at(matrix[row], mirrored[row : row + len(kernel)], kernel)
    return matrix
