"""PatchCore (Roth et al. 2022): distance to the nearest patch of a small bank of good ones."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calibration.detectors.contract import Fit
from calibration.detectors.embedding import join_levels
from calibration.detectors.feature_store import batch_images
from calibration.detectors.memory_bank import AHEAD, MemoryBank, gather, greedy_coreset, squared_lengths
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.onnx_graph import GraphBuilder

    Float32 = NDArray[np.float32]

_SEED = 0
_PROJECTED = 128
_BLOCK = 64  # entries of the bank whose distances to all others are in memory at a time


@dataclass(frozen=True)
class PatchCoreHead(MemoryBank):
    """Distance to the memory bank, with the re-weighted largest one as the score (eqs. 6 and 7).

    Attributes:
        neighbours: Indices of the b nearest entries of each entry, itself included, (m, b), int64.
    """

    neighbours: NDArray[np.int64]

    def scores(self, reduced: Float32) -> Scores:
        """Map and score of images, (n, d, h, w)."""
        count, _, height, width = reduced.shape
        score = np.empty(count, np.float32)
        maps = np.empty((count, height, width), np.float32)
        for number, features in enumerate(reduced):
            patches = self.patches(features)
            squares = _squared_distances(patches, self.bank)
            smallest = squares.min(axis=1)
            worst = int(smallest.argmax())
            around = self.bank[self.neighbours[squares[worst].argmin()]]
            to_neighbours = np.sqrt(np.square(patches[worst] - around).sum(axis=1))
            # The nearest is among its own neighbours, and a difference has more digits than that of two squares.
            nearest = to_neighbours.min()
            # exp(s*) / sum of exp, with the largest exponent taken out of both.
            relative = np.exp(to_neighbours - to_neighbours.max())
            weight = 1 - relative.min() / relative.sum()
            score[number], maps[number] = weight * nearest, np.sqrt(smallest).reshape(height, width)
        return Scores(score, maps)

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add the search, a minimum over the bank, and the weight of eq. 7."""
        _, height, width = reduced.shape
        patches, to_bank = self.attach_search(graph, reduced)
        smallest = graph.add("ReduceMin", to_bank, axes=[1], keepdims=0)
        own = graph.add("ReduceSumSquare", patches, axes=[1], keepdims=0)
        squares = graph.add("Relu", graph.add("Add", smallest, own))  # rounding may take it below zero
        graph.add("Reshape", graph.add("Sqrt", squares), graph.ints(1, height, width), output="map")
        self._attach_score(graph, squares, patches, to_bank)
        return height, width

    def _attach_score(self, graph: GraphBuilder, squares: str, patches: str, to_bank: str) -> None:
        """Eq. 7: the largest distance counts less where the bank is sparse."""
        worst = graph.add("ArgMax", squares, axis=0, keepdims=0)
        nearest = graph.add("ArgMin", graph.add("Gather", to_bank, worst, axis=0), axis=0, keepdims=0)
        table = graph.constant("head.neighbours", self.neighbours)
        around = graph.add("Gather", "head.bank", graph.add("Gather", table, nearest, axis=0), axis=0)
        difference = graph.add("Sub", around, graph.add("Gather", patches, worst, axis=0))
        to_neighbours = graph.add("ReduceL2", difference, axes=[1], keepdims=0)
        largest = graph.add("ReduceMin", to_neighbours, axes=[0], keepdims=1)
        # The nearest has the least share of the sum.
        share = graph.add("ReduceMin", graph.add("Softmax", to_neighbours, axis=0), axes=[0], keepdims=1)
        weight = graph.add("Sub", graph.floats(1.0), share)
        graph.add("Mul", largest, weight, output="score")


@dataclass(frozen=True, slots=True)
class PatchCore:
    """The detector and its parameters.

    Attributes:
        coreset: Share of all patches that the bank holds, in (0, 1].
        neighbours: b of eq. 7.
        aggregation: Side of the averaged neighbourhood, in grid cells, odd.
        candidates: Maximum number of patches, drawn at random, that the coreset is chosen from; None: all.
    """

    name: ClassVar[str] = "patchcore"
    memory_advice: ClassVar[str] = "a smaller coreset"

    coreset: float = 0.01
    neighbours: int = 9
    aggregation: int = 3
    candidates: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0.0 < self.coreset <= 1.0:
            raise SettingError(what=f"coreset = {self.coreset} is outside (0, 1]", remedy="give a share, e.g. 0.01")
        if self.neighbours < 2:  # noqa: PLR2004 - with itself as the only neighbour, eq. 7 is zero for every image
            raise SettingError(what=f"neighbours = {self.neighbours} is too few", remedy="give 2 or more, e.g. 9")
        if self.aggregation < 1 or self.aggregation % 2 == 0:
            raise SettingError(what=f"aggregation = {self.aggregation} is not odd", remedy="give 1, 3, 5, ...")
        if self.candidates is not None and self.candidates < self.neighbours:
            raise SettingError(
                what=f"candidates = {self.candidates} is fewer than the {self.neighbours} neighbours",
                remedy="give more, e.g. 50000",
            )

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Average each level over the neighbourhood of each of its own cells, then join the levels (eqs. 1 to 3).

        Cells outside a level count as zeros, as in the authors' code.
        """
        del features
        return join_levels(graph, [self._averaged(graph, level) for level in levels])

    def _averaged(self, graph: GraphBuilder, level: FeatureMap) -> FeatureMap:
        window, border = self.aggregation, self.aggregation // 2
        averaged = graph.add(
            "AveragePool",
            level.name,
            kernel_shape=[window, window],
            strides=[1, 1],
            pads=[border] * 4,
            count_include_pad=1,
        )
        return FeatureMap(averaged, level.shape)

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """The projected candidates with what the coreset computes, four banks, the distances to one, and a batch.

        The batch counts four times: as read, as patches, as those chosen of them, and the one scored last.
        """
        channels, height, width = reduced
        total = images * height * width
        candidates = min(self.candidates or total, total)
        bank = self._bank_size(candidates, total)
        compared = max(3 * _BLOCK, 2 * height * width)
        batch = 4 * batch_images(reduced, images) * channels * height * width
        chosen = 0 if bank == candidates else candidates * (min(channels, _PROJECTED) + AHEAD + 8)
        numbers = chosen + 4 * candidates + bank * (4 * (channels + 2 * self.neighbours) + compared)
        return 4 * (numbers + batch) / 2**20

    def within(self, limit_mib: float, reduced: tuple[int, int, int], images: int) -> PatchCore:
        """The same with as many candidates as this memory allows, if their number was not given.

        A bank that is too large stays as it is.
        """
        total = images * int(np.prod(reduced[1:]))
        numbers = range(self._bank_size(total, total), total + 1)
        fitting = bisect_right(numbers, limit_mib, key=lambda each: self._of(each).memory_mib(reduced, images))
        if self.candidates is not None or fitting in {0, len(numbers)}:
            return self
        return self._of(numbers[fitting - 1])

    def _of(self, candidates: int) -> PatchCore:
        return replace(self, candidates=candidates)

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Choose a coreset of all patches, and for each fold one of the other folds."""
        del levels
        held_out = (self._head(store, others) for others in folds.complements())
        head, patches = self._head(store, folds.images), _patches(store, folds.images)
        counts = {"candidates": min(self.candidates or patches, patches), "patches": patches, "bank": len(head.bank)}
        return Fit(head, held_out, {**asdict(self), **counts})

    def _head(self, store: Features, images: Sequence[int]) -> PatchCoreHead:
        """Two passes over the features, so that only the projected candidates and the bank are in memory."""
        random, total, channels = np.random.default_rng(_SEED), _patches(store, images), store.shape[0]
        rows = np.arange(total)
        if self.candidates is not None and self.candidates < total:
            rows = np.sort(random.choice(total, self.candidates, replace=False))
        size = self._bank_size(len(rows), total)
        if size < len(rows):
            near = next(store.batches(images[:1])).mean(axis=(0, 2, 3))
            project = _projection(channels, random)
            width = min(channels, _PROJECTED)
            projected = gather(store.batches(images), rows, width, lambda patches: project(patches - near))
            rows = np.sort(rows[greedy_coreset(projected, size)])
        bank = gather(store.batches(images), rows, channels)
        mean = bank.mean(axis=0)
        bank -= mean
        return PatchCoreHead(mean, bank, _nearest(bank, self.neighbours))

    def _bank_size(self, candidates: int, total: int) -> int:
        return min(candidates, max(self.neighbours, round(self.coreset * total)))


def _patches(store: Features, images: Sequence[int]) -> int:
    return len(images) * int(np.prod(store.shape[1:]))


def _projection(channels: int, random: np.random.Generator) -> Callable[[Float32], Float32]:
    """Projects points at random, which nearly keeps distances (Johnson and Lindenstrauss 1984)."""
    if channels <= _PROJECTED:
        return lambda points: points
    matrix = random.standard_normal((channels, _PROJECTED)).astype(np.float32) / np.sqrt(np.float32(_PROJECTED))
    return lambda points: points @ matrix


def _nearest(bank: Float32, count: int) -> NDArray[np.int64]:
    """Indices of the nearest entries of each entry, itself included, (m, count), or (m, m) if the bank is small."""
    count = min(count, len(bank))
    nearest = np.empty((len(bank), count), np.int64)
    for start in range(0, len(bank), _BLOCK):
        block = bank[start : start + _BLOCK]
        squares = _squared_distances(block, bank)
        rows = np.arange(len(block))
        squares[rows, start + rows] = -1.0  # itself first, even among copies
        nearest[start : start + _BLOCK] = np.argpartition(squares, count - 1, axis=1)[:, :count]
    return nearest


def _squared_distances(points: Float32, others: Float32) -> Float32:
    squares: Float32 = points @ others.T
    squares *= -2
    squares += squared_lengths(points)[:, None]
    squares += squared_lengths(others)
    return np.maximum(squares, 0.0, out=squares)
