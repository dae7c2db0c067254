"""Memory banks: a few patches that represent all good ones, and the search for the nearest of them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from calibration.onnx_graph import FeatureMap, GraphBuilder

    Float32 = NDArray[np.float32]

AHEAD = 32  # points whose distances to all others the coreset keeps


@dataclass(frozen=True)
class MemoryBank:
    """Good patches.

    Features and bank are centred: in float32, distances between vectors far from the origin would lose their digits.

    Attributes:
        mean: (d,), float32, subtracted from the features.
        bank: (m, d), float32, centred.
    """

    mean: Float32
    bank: Float32

    def patches(self, features: Float32) -> Float32:
        """Centred patches of (d, h, w): (h * w, d)."""
        patches: Float32 = features.reshape(len(features), -1).T - self.mean
        return patches

    def attach_search(self, graph: GraphBuilder, features: FeatureMap, suffix: str = "") -> tuple[str, str]:
        """Add the search to the graph.

        For each patch x and entry m it gives |m|^2 - 2 x.m, the squared distance less |x|^2. The squared lengths |m|^2
        are one more channel of the product: added afterwards, they would cost another pass over it. The constant factor
        is on the right, where runtimes arrange it in advance.

        Args:
            graph: The graph to extend.
            features: Features of the image, (d, h, w).
            suffix: Of the names of the initialisers ``head.*``, for a head with several banks.

        Returns:
            Names of the centred patches, (h * w, d), and of the product, (h * w, m).
        """
        channels, height, width = features.shape
        mean = graph.constant(f"head.mean{suffix}", self.mean[None, :, None, None])
        planes = graph.add("Reshape", graph.add("Sub", features.name, mean), graph.ints(channels, height * width))
        patches = graph.add("Transpose", planes, perm=[1, 0])
        entries = graph.constant(f"head.bank{suffix}", self.bank)
        lengths = graph.constant(f"head.lengths{suffix}", squared_lengths(self.bank)[:, None])
        columns = graph.add("Concat", graph.add("Mul", entries, graph.floats(-2.0)), lengths, axis=1)
        ones = graph.constant(f"head.ones{suffix}", np.ones((height * width, 1), np.float32))
        rows = graph.add("Concat", patches, ones, axis=1)
        return patches, graph.add("MatMul", rows, graph.add("Transpose", columns, perm=[1, 0]))


def sample(batches: Iterable[Float32], shape: tuple[int, int], limit: int, random: np.random.Generator) -> Float32:
    """Patches, at most ``limit``, drawn at random from batches of features (n, d, h, w).

    ``shape`` is the number of patches in all batches, and of channels: (sum of n * h * w, d).
    """
    total, channels = shape
    return gather(batches, np.sort(random.choice(total, min(limit, total), replace=False)), channels)


def gather(
    batches: Iterable[Float32],
    rows: NDArray[np.int64],
    width: int,
    of_patches: Callable[[Float32], Float32] = lambda patches: patches,
) -> Float32:
    """The patches with these numbers, rising, or what ``of_patches`` makes of them, (len(rows), width).

    Args:
        batches: Features, (n, d, h, w), whose patches are numbered one after the other.
        rows: Numbers of the patches.
        width: Length of a row of the result.
        of_patches: Turns patches, (k, d), into rows of the result, (k, width).
    """
    gathered = np.empty((len(rows), width), np.float32)
    seen = filled = 0
    for batch in batches:
        patches = batch.reshape(*batch.shape[:2], -1).transpose(0, 2, 1).reshape(-1, batch.shape[1])
        end = filled + int(np.searchsorted(rows[filled:], seen + len(patches)))
        gathered[filled:end] = of_patches(patches[rows[filled:end] - seen])
        filled, seen = end, seen + len(patches)
    return gathered


def most_that_fit(numbers: range, limit_mib: float, memory_mib: Callable[[int], float]) -> int | None:
    """The largest of these numbers of patches whose memory, which rises with it, is within the limit.

    None if all are, or none is.
    """
    fitting = bisect_right(numbers, limit_mib, key=memory_mib)
    return None if fitting in {0, len(numbers)} else numbers[fitting - 1]


def greedy_coreset(points: Float32, count: int) -> NDArray[np.int64]:
    """Indices of ``count`` points, (n, d), that cover the others: each is the farthest from those chosen before.

    The minimax facility location problem is NP-hard; this greedy choice is within a factor of two (Roth et al. 2022,
    algorithm 1). The distances of all points to the ``AHEAD`` farthest are computed at once, since most of these are
    chosen next: one product with a matrix instead of many with a vector, each of which would read all points.
    """
    lengths = squared_lengths(points)
    nearest = np.full(len(points), np.inf, np.float32)
    chosen = np.empty(count, np.int64)
    following = int(lengths.argmin())
    ahead = {following: points @ points[following]}
    for number in range(count):
        if following not in ahead:
            farthest = np.argpartition(nearest, -min(AHEAD, len(points)))[-AHEAD:]
            farthest[0] = following  # which is not among them if many are as far
            ahead = dict(zip(farthest.tolist(), points[farthest] @ points.T, strict=True))
        chosen[number] = following
        np.minimum(nearest, lengths - 2 * ahead[following] + lengths[following], out=nearest)
        nearest[following] = -np.inf  # rounding must not choose it again
        following = int(nearest.argmax())
    return chosen


def squared_lengths(points: Float32) -> Float32:
    """Squared length of each row, (n,)."""
    lengths: Float32 = np.einsum("ij,ij->i", points, points)
    return lengths
