"""Memory banks: a few patches that stand for all good ones, and the distance to the nearest of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from calibration.onnx_graph import GraphBuilder

    Float32 = NDArray[np.float32]


def sample(batches: Iterable[Float32], shape: tuple[int, int], limit: int, random: np.random.Generator) -> Float32:
    """Patches of images, at random where there are more than the limit.

    Args:
        batches: Of features, (n, d, h, w) each.
        shape: Patches and channels of all batches together, (n * h * w, d).
        limit: How many patches at most.
        random: Chooses them.
    """
    total, channels = shape
    chosen = np.sort(random.choice(total, min(limit, total), replace=False))
    patches = np.empty((len(chosen), channels), np.float32)
    seen = filled = 0
    for batch in batches:
        vectors = batch.reshape(len(batch), channels, -1).transpose(0, 2, 1).reshape(-1, channels)
        here = chosen[(chosen >= seen) & (chosen < seen + len(vectors))] - seen
        patches[filled : filled + len(here)] = vectors[here]
        filled += len(here)
        seen += len(vectors)
    return patches


def greedy_coreset(points: Float32, count: int) -> NDArray[np.int64]:
    """Indices of points that cover the others: each is the one farthest from those chosen before.

    The minimax facility location problem is NP-hard; this greedy choice is within a factor of two (Roth et al. 2022,
    algorithm 1).

    Args:
        points: (n, d).
        count: How many, at most n.
    """
    lengths = squared_lengths(points)
    chosen = np.empty(count, np.int64)
    chosen[0] = lengths.argmin()
    nearest = np.full(len(points), np.inf, np.float32)
    for number in range(1, count):
        last = chosen[number - 1]
        np.minimum(nearest, lengths - 2 * (points @ points[last]) + lengths[last], out=nearest)
        nearest[last] = -np.inf  # rounding must not choose it again
        chosen[number] = nearest.argmax()
    return chosen


def squared_lengths(points: Float32) -> Float32:
    """Of each row, (n,)."""
    lengths: Float32 = np.einsum("ij,ij->i", points, points)
    return lengths


def attach_comparison(graph: GraphBuilder, patches: str, places: int, bank: Float32, suffix: str = "") -> str:
    """Add the search: for each patch and entry m of the bank |m|^2 - 2 x.m, the squared distance less |x|^2.

    The squared lengths ride along as one more channel: added afterwards, they would cost another look at all of the
    product. Its factor that never changes is the right one, which runtimes lay out beforehand.

    Args:
        graph: Where to.
        patches: Name of the patches, (places, d).
        places: How many there are.
        bank: (m, d), stored as ``head.bank`` and the suffix.
        suffix: Of the initialisers' names, where a head has several banks.

    Returns:
        Name of the product, (places, m).
    """
    entries = graph.constant(f"head.bank{suffix}", bank)
    lengths = graph.constant(f"head.lengths{suffix}", squared_lengths(bank)[:, None])
    columns = graph.add("Concat", graph.add("Mul", entries, graph.floats(-2.0)), lengths, axis=1)
    ones = graph.constant(f"head.ones{suffix}", np.ones((places, 1), np.float32))
    rows = graph.add("Concat", patches, ones, axis=1)
    return graph.add("MatMul", rows, graph.add("Transpose", columns, perm=[1, 0]))
