"""Nodes that join levels, or neighbouring grid cells, into one vector for each cell, and reduce its dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.onnx_graph import GraphBuilder

_SEED = 0


def join_levels(
    graph: GraphBuilder, levels: Sequence[FeatureMap], output: str | None = None, *, copied: bool = False
) -> FeatureMap:
    """All levels on the grid of the first, concatenated.

    Args:
        graph: The graph to extend.
        levels: On any grids.
        output: Name of the result; None generates one.
        copied: Cells of coarser levels are copied to all that they cover, instead of interpolated.
    """
    grid = levels[0].shape[1:]
    parts = [_on_grid(graph, level, grid, copied=copied) for level in levels]
    if len(parts) == 1:
        joined = graph.add("Identity", *parts, output=output)
    else:
        joined = graph.add("Concat", *parts, axis=1, output=output)
    return FeatureMap(joined, (sum(level.shape[0] for level in levels), *grid))


def _on_grid(graph: GraphBuilder, level: FeatureMap, grid: tuple[int, int], *, copied: bool) -> str:
    """A level on another grid: averaged if it is finer by a whole factor, else copied or interpolated (bilinear)."""
    _, height, width = level.shape
    if (height, width) == grid:
        return level.name
    if height % grid[0] == 0 and width % grid[1] == 0:
        cell = [height // grid[0], width // grid[1]]
        return graph.add("AveragePool", level.name, kernel_shape=cell, strides=cell)
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if copied:
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", level.name, "", "", graph.ints(1, level.shape[0], *grid), **how)


def join_patches(graph: GraphBuilder, features: FeatureMap, side: int) -> FeatureMap:
    """Concatenate the vectors of each ``side`` x ``side`` cells (Hermann et al. 2022: patches of R pixels).

    Raises:
        SettingError: The grid is smaller than a patch.
    """
    if side == 1:
        return features
    channels, height, width = features.shape
    if min(height, width) < side:
        raise SettingError(
            what=f"a patch of {side} cells is larger than the {height}x{width} grid",
            remedy=f"give --patch {min(height, width)} or less, or a larger --size",
        )
    rows, columns = height - side + 1, width - side + 1
    shifted = [
        graph.add(
            "Slice",
            features.name,
            graph.ints(row, column),
            graph.ints(row + rows, column + columns),
            graph.ints(2, 3),
        )
        for row in range(side)
        for column in range(side)
    ]
    return FeatureMap(graph.add("Concat", *shifted, axis=1), (channels * side**2, rows, columns))


def project_randomly(graph: GraphBuilder, features: FeatureMap, dimensions: int | None) -> FeatureMap:
    """Project onto random orthonormal directions, as a 1x1 convolution; None keeps all dimensions.

    A random subspace nearly keeps the distances between vectors (Johnson and Lindenstrauss 1984).
    """
    channels, height, width = features.shape
    if dimensions is None or dimensions >= channels:
        return features
    directions = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((channels, dimensions)))[0].T
    weights = graph.constant("reduce.projection", directions.astype(np.float32)[:, :, None, None])
    return FeatureMap(graph.add("Conv", features.name, weights), (dimensions, height, width))
