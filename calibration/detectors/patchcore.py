"""PatchCore (Roth et al. 2022): distance to the nearest patch of a small bank of good ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calibration.detectors.contract import Fit
from calibration.detectors.feature_store import batch_images
from calibration.detectors.memory_bank import MemoryBank, greedy_coreset, sample, squared_lengths
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        candidates: Maximum number of patches, drawn at random, that the coreset is chosen from.
    """

    name: ClassVar[str] = "patchcore"
    memory_advice: ClassVar[str] = "a smaller coreset"

    coreset: float = 0.01
    neighbours: int = 9
    aggregation: int = 3
    candidates: int = 50_000

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0.0 < self.coreset <= 1.0:
            raise SettingError(what=f"coreset = {self.coreset} is outside (0, 1]", remedy="give a share, e.g. 0.01")
        if self.neighbours < 2:  # noqa: PLR2004 - with itself as the only neighbour, eq. 7 is zero for every image
            raise SettingError(what=f"neighbours = {self.neighbours} is too few", remedy="give 2 or more, e.g. 9")
        if self.aggregation < 1 or self.aggregation % 2 == 0:
            raise SettingError(what=f"aggregation = {self.aggregation} is not odd", remedy="give 1, 3, 5, ...")

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Average over the neighbourhood of each location; the grid stays."""
        del levels
        window, border = self.aggregation, self.aggregation // 2
        averaged = graph.add(
            "AveragePool",
            features.name,
            kernel_shape=[window, window],
            strides=[1, 1],
            pads=[border] * 4,
            count_include_pad=0,
        )
        return FeatureMap(averaged, features.shape)

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """The candidates and their projections, four banks, the distances to one, and a batch.

        The batch counts four times: as read, as patches, as those chosen of them, and the one scored last.
        """
        channels, height, width = reduced
        total = images * height * width
        candidates = min(self.candidates, total)
        bank = self._bank_size(candidates, total)
        compared = max(3 * _BLOCK, 2 * height * width)
        batch = 4 * batch_images(reduced, images) * channels * height * width
        numbers = candidates * (channels + _PROJECTED + 4) + bank * (4 * (channels + 2 * self.neighbours) + compared)
        return 4 * (numbers + batch) / 2**20

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Choose a coreset of all patches, and for each fold one of the other folds."""
        del levels
        held_out = (self._head(store, others) for others in folds.complements())
        head = self._head(store, folds.images)
        return Fit(head, held_out, {**asdict(self), "bank": len(head.bank)})

    def _head(self, store: Features, images: Sequence[int]) -> PatchCoreHead:
        random = np.random.default_rng(_SEED)
        total = len(images) * int(np.prod(store.shape[1:]))
        patches = sample(store.batches(images), (total, store.shape[0]), self.candidates, random)
        mean = patches.mean(axis=0)
        patches -= mean
        bank = patches[greedy_coreset(_project(patches, random), self._bank_size(len(patches), total))]
        return PatchCoreHead(mean, bank, _nearest(bank, self.neighbours))

    def _bank_size(self, candidates: int, total: int) -> int:
        return min(candidates, max(self.neighbours, round(self.coreset * total)))


def _project(points: Float32, random: np.random.Generator) -> Float32:
    """Project at random, which nearly keeps distances (Johnson and Lindenstrauss 1984)."""
    channels = points.shape[1]
    if channels <= _PROJECTED:
        return points
    matrix = random.standard_normal((channels, _PROJECTED)).astype(np.float32) / np.sqrt(np.float32(_PROJECTED))
    projected: Float32 = points @ matrix
    return projected


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
