"""PatchCore (Roth et al. 2022): distance to the nearest of a few remembered good patches, as part of the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calibration.detectors import Fit
from calibration.errors import SettingError
from calibration.graph import FeatureMap
from calibration.head import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.feature_store import FeatureStore
    from calibration.graph import GraphBuilder

    Float32 = NDArray[np.float32]

_SEED = 0
_PROJECTED = 128


@dataclass(frozen=True)
class MemoryHead:
    """Distance to the memory bank, and the re-weighted largest one as the score (eqs. 6 and 7).

    Features and bank are centred first: distances between far-away vectors would lose their digits in float32.

    Attributes:
        mean: (d,), float32, subtracted from the features.
        bank: M, (m, d), float32, centred.
        neighbours: For each entry of the bank its b nearest ones, itself included, (m, b), int64.
    """

    mean: Float32
    bank: Float32
    neighbours: NDArray[np.int64]

    def scores(self, reduced: Float32) -> Scores:
        """In NumPy."""
        count, channels, height, width = reduced.shape
        score = np.empty(count, np.float32)
        maps = np.empty((count, height, width), np.float32)
        for number, features in enumerate(reduced):
            patches = features.reshape(channels, -1).T - self.mean
            squares = _squared_distances(patches, self.bank)
            nearest = np.sqrt(squares.min(axis=1))
            worst = int(nearest.argmax())
            around = self.bank[self.neighbours[squares[worst].argmin()]]
            to_neighbours = np.sqrt(np.square(patches[worst] - around).sum(axis=1))
            # exp(s*) / sum of exp, with the largest exponent taken out of both.
            weight = 1 - 1 / np.exp(to_neighbours - nearest[worst]).sum()
            score[number], maps[number] = weight * nearest[worst], nearest.reshape(height, width)
        return Scores(score, maps)

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """The search is a 1x1 convolution with the bank and a minimum over its outputs."""
        channels, height, width = reduced.shape
        mean = graph.constant("head.mean", self.mean[None, :, None, None])
        bank = graph.constant("head.bank", self.bank)
        patches = graph.add("Sub", reduced.name, mean)
        kernel = graph.add("Mul", bank, graph.floats(-2.0))
        kernel = graph.add("Reshape", kernel, graph.ints(len(self.bank), channels, 1, 1))
        lengths = graph.constant("head.lengths", np.square(self.bank).sum(axis=1))
        to_bank = graph.add("Conv", patches, kernel, lengths)
        smallest = graph.add("ReduceMin", to_bank, axes=[1], keepdims=1)
        own = graph.add("ReduceSum", graph.add("Mul", patches, patches), graph.ints(1), keepdims=1)
        square = graph.add("Max", graph.add("Add", smallest, own), graph.floats(0.0))
        flat = graph.add("Reshape", graph.add("Sqrt", square), graph.ints(1, height * width))
        graph.add("Reshape", flat, graph.ints(1, height, width), output="map")
        self._attach_weight(graph, flat, patches, to_bank, (channels, height * width))
        return height, width

    def _attach_weight(
        self, graph: GraphBuilder, distances: str, patches: str, to_bank: str, shape: tuple[int, int]
    ) -> None:
        """Eq. 7: a distance counts less where the bank itself is sparse."""
        channels, places = shape
        worst = graph.add("ArgMax", distances, axis=1, keepdims=0)
        largest = graph.add("ReduceMax", distances, axes=[1], keepdims=0)
        patch = graph.add("Gather", graph.add("Reshape", patches, graph.ints(channels, places)), worst, axis=1)
        column = graph.add("Gather", graph.add("Reshape", to_bank, graph.ints(len(self.bank), places)), worst, axis=1)
        nearest = graph.add("ArgMin", column, axis=0, keepdims=0)
        table = graph.constant("head.neighbours", self.neighbours)
        indices = graph.add("Reshape", graph.add("Gather", table, nearest, axis=0), graph.ints(-1))
        around = graph.add("Gather", "head.bank", indices, axis=0)
        row = graph.add("Reshape", patch, graph.ints(1, channels))
        difference = graph.add("Sub", around, row)
        square = graph.add("ReduceSum", graph.add("Mul", difference, difference), graph.ints(1), keepdims=0)
        relative = graph.add("Exp", graph.add("Sub", graph.add("Sqrt", square), largest))
        total = graph.add("ReduceSum", relative, graph.ints(0), keepdims=1)
        weight = graph.add("Sub", graph.floats(1.0), graph.add("Reciprocal", total))
        graph.add("Mul", largest, weight, output="score")


@dataclass(frozen=True, slots=True)
class PatchCore:
    """Parameters of the detector.

    Attributes:
        coreset: Share of all patches that is remembered, in (0, 1].
        neighbours: b of eq. 7.
        aggregation: Side of the neighbourhood that is averaged, in grid cells, odd.
        candidates: Patches that the coreset is chosen from, at random where there are more.
    """

    name: ClassVar[str] = "patchcore"

    coreset: float = 0.01
    neighbours: int = 9
    aggregation: int = 3
    candidates: int = 50_000

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0.0 < self.coreset <= 1.0:
            raise SettingError(what=f"coreset = {self.coreset} is outside (0, 1]", remedy="give a share, e.g. 0.01")
        if self.neighbours < 1 or self.aggregation < 1 or self.aggregation % 2 == 0:
            raise SettingError(
                what=f"neighbours = {self.neighbours}, aggregation = {self.aggregation} make no sense",
                remedy="give at least one neighbour, and an odd aggregation, e.g. 3",
            )

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """The average over each place's neighbourhood; the grid stays."""
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
        """The candidates, and what is compared with them."""
        channels, height, width = reduced
        return min(self.candidates, images * height * width) * (channels + 2 * _PROJECTED) * 4 / 2**20

    def fit(self, store: FeatureStore, folds: Sequence[Sequence[int]], levels: Sequence[int]) -> Fit:
        """A coreset of all patches, and for each fold one of the others."""
        del levels
        held_out = (self._head(store, sorted(set(range(store.count)) - set(fold))) for fold in folds)
        head = self._head(store, range(store.count))
        return Fit(head, held_out, {**asdict(self), "bank": len(head.bank)})

    def _head(self, store: FeatureStore, images: Sequence[int]) -> MemoryHead:
        random = np.random.default_rng(_SEED)
        patches, total = _sample(store, images, self.candidates, random)
        mean = patches.mean(axis=0)
        patches -= mean
        wanted = max(self.neighbours, round(self.coreset * total))
        bank = patches[greedy_coreset(_project(patches, random), min(wanted, len(patches)))]
        count = min(self.neighbours, len(bank))
        neighbours = np.argpartition(_squared_distances(bank, bank), count - 1, axis=1)[:, :count]
        return MemoryHead(mean, bank, neighbours.astype(np.int64))


def greedy_coreset(points: Float32, count: int) -> NDArray[np.int64]:
    """Indices of points that cover the others: each is the one farthest from those chosen before.

    The minimax facility location problem is NP-hard; this greedy choice is within a factor of two (Roth et al. 2022,
    algorithm 1).

    Args:
        points: (n, d).
        count: How many, at most n.
    """
    lengths = np.square(points).sum(axis=1)
    chosen = np.empty(count, np.int64)
    chosen[0] = lengths.argmin()
    nearest = np.full(len(points), np.inf, np.float32)
    for number in range(1, count):
        last = chosen[number - 1]
        np.minimum(nearest, lengths - 2 * (points @ points[last]) + lengths[last], out=nearest)
        nearest[last] = -np.inf  # rounding must not choose it again
        chosen[number] = nearest.argmax()
    return chosen


def _sample(store: FeatureStore, images: Sequence[int], limit: int, random: np.random.Generator) -> tuple[Float32, int]:
    """Patches of the images, at random where there are more than the limit; and how many there are."""
    places = int(np.prod(store.shape[1:]))
    total = len(images) * places
    chosen = np.sort(random.choice(total, min(limit, total), replace=False))
    patches = np.empty((len(chosen), store.shape[0]), np.float32)
    seen = filled = 0
    for batch in store.batches(images):
        vectors = batch.reshape(len(batch), store.shape[0], places).transpose(0, 2, 1).reshape(-1, store.shape[0])
        here = chosen[(chosen >= seen) & (chosen < seen + len(vectors))] - seen
        patches[filled : filled + len(here)] = vectors[here]
        filled += len(here)
        seen += len(vectors)
    return patches, total


def _project(points: Float32, random: np.random.Generator) -> Float32:
    """Fewer dimensions, distances nearly kept (Johnson and Lindenstrauss 1984)."""
    channels = points.shape[1]
    if channels <= _PROJECTED:
        return points
    matrix = random.standard_normal((channels, _PROJECTED)).astype(np.float32) / np.sqrt(np.float32(_PROJECTED))
    projected: Float32 = points @ matrix
    return projected


def _squared_distances(points: Float32, others: Float32) -> Float32:
    lengths = np.square(points).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    squares: Float32 = np.maximum(lengths - 2 * (points @ others.T), 0.0)
    return squares
