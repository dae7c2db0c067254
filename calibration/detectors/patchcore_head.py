"""PatchCore's head: the search for the nearest good patch, with the weight of eq. 7 (Roth et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors.head import attach_smoothing
from calibration.detectors.memory_bank import MemoryBank, squared_lengths
from calibration.onnx_graph import FeatureMap
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.onnx_graph import GraphBuilder
    from calibration.statistics.smoothing import Smoothing

    Float32 = NDArray[np.float32]

BLOCK = 64  # entries of the bank whose distances to all others are in memory at a time


@dataclass(frozen=True)
class PatchCoreHead(MemoryBank):
    """Distance to the memory bank, with the re-weighted largest one as the score (eqs. 6 and 7).

    Attributes:
        neighbours: Indices of the b nearest entries of each entry, itself included, (m, b), int64.
        smoothing: Of the map; the score follows from the distances before it. None: the map is on the patches' grid.
    """

    neighbours: NDArray[np.int64]
    smoothing: Smoothing | None = None

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
        return Scores(score, maps if self.smoothing is None else self.smoothing(maps))

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add the search, a minimum over the bank, and the weight of eq. 7."""
        score, distances = self.attach_member(graph, reduced, "")
        graph.add("Identity", score, output="score")
        return _attach_map(graph, distances, reduced, self.smoothing)

    def attach_member(self, graph: GraphBuilder, reduced: FeatureMap, suffix: str) -> tuple[str, str]:
        """Add the nodes of one of several banks; returns the names of the score, (1,), and distances, (1, h, w)."""
        _, height, width = reduced.shape
        patches, to_bank = self.attach_search(graph, reduced, suffix)
        smallest = graph.add("ReduceMin", to_bank, axes=[1], keepdims=1)
        own = graph.add("ReduceSumSquare", patches, axes=[1], keepdims=1)
        squares = graph.add("Relu", graph.add("Add", smallest, own))  # rounding may take it below zero
        distances = graph.add("Reshape", graph.add("Sqrt", squares), graph.ints(1, height, width))
        # Eq. 7: the largest distance counts less where the bank is sparse. All tensors keep a dimension of one, because
        # TensorRT takes no ArgMax of a vector.
        worst = graph.add("ArgMax", squares, axis=0, keepdims=0)
        nearest = graph.add("ArgMin", graph.add("Gather", to_bank, worst, axis=0), axis=1, keepdims=0)
        table = graph.constant(f"head.neighbours{suffix}", self.neighbours)
        around = graph.add("Gather", f"head.bank{suffix}", graph.add("Gather", table, nearest, axis=0), axis=0)
        difference = graph.add("Sub", around, graph.add("Gather", patches, worst, axis=0))
        to_neighbours = graph.add("ReduceL2", difference, axes=[2], keepdims=0)
        largest = graph.add("ReduceMin", to_neighbours, axes=[1], keepdims=0)
        # The nearest has the least share of the sum.
        share = graph.add("ReduceMin", graph.add("Softmax", to_neighbours, axis=1), axes=[1], keepdims=0)
        weight = graph.add("Sub", graph.floats(1.0), share)
        return graph.add("Mul", largest, weight), distances

    def usual_distance(self) -> float:
        """Mean distance of an entry from the nearest other one: what good patches are about as far from the bank."""
        total = 0.0
        for number, around in enumerate(self.neighbours):
            others = self.bank[around[around != number]]
            total += float(np.linalg.norm(others - self.bank[number], axis=1).min())
        return max(total / len(self.bank), float(np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class EnsembleHead:
    """A bank for each of several backbones; score and map are the means of theirs, each in its own usual distance.

    Attributes:
        members: One head for each backbone, whose own smoothing is not used.
        factors: Of the score and the distances of each, float32.
        smoothing: Of the mean map.
    """

    members: tuple[PatchCoreHead, ...]
    factors: Float32
    smoothing: Smoothing | None = None

    @classmethod
    def of(cls, members: Sequence[PatchCoreHead], smoothing: Smoothing | None) -> EnsembleHead:
        """The mean of these heads."""
        usual = np.array([member.usual_distance() for member in members])
        return cls(tuple(members), (1 / usual / len(members)).astype(np.float32), smoothing)

    @property
    def channels(self) -> list[int]:
        """Channels of the features of each."""
        return [len(member.mean) for member in self.members]

    def scores(self, reduced: Float32) -> Scores:
        """Map and score of images, (n, d, h, w)."""
        parts = np.split(reduced, np.cumsum(self.channels)[:-1], axis=1)
        scored = [member.scores(part) for member, part in zip(self.members, parts, strict=True)]
        score = np.sum([each.score * factor for each, factor in zip(scored, self.factors, strict=True)], axis=0)
        maps = np.sum([each.map * factor for each, factor in zip(scored, self.factors, strict=True)], axis=0)
        return Scores(score, maps if self.smoothing is None else self.smoothing(maps))

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add the search in each bank, and the means."""
        scores, maps, stop = [], [], 0
        for number, (member, channels) in enumerate(zip(self.members, self.channels, strict=True)):
            start, stop = stop, stop + channels
            part = graph.add("Slice", reduced.name, graph.ints(start), graph.ints(stop), graph.ints(1))
            score, distances = member.attach_member(
                graph, FeatureMap(part, (channels, *reduced.shape[1:])), f".{number}"
            )
            scale = graph.constant(f"head.scale.{number}", self.factors[number : number + 1])
            scores.append(graph.add("Mul", score, scale))
            maps.append(graph.add("Mul", distances, scale))
        graph.add("Sum", *scores, output="score")
        return _attach_map(graph, graph.add("Sum", *maps), reduced, self.smoothing)


def _attach_map(
    graph: GraphBuilder, distances: str, reduced: FeatureMap, smoothing: Smoothing | None
) -> tuple[int, int]:
    """Add the output ``map``; returns its rows and columns."""
    grid = reduced.shape[1:]
    if smoothing is None:
        graph.add("Identity", distances, output="map")
        return grid
    attach_smoothing(graph, distances, grid, smoothing)
    return smoothing.size


def nearest_entries(bank: Float32, count: int) -> NDArray[np.int64]:
    """Indices of the nearest entries of each entry, itself included, (m, count), or (m, m) if the bank is small."""
    count = min(count, len(bank))
    nearest = np.empty((len(bank), count), np.int64)
    for start in range(0, len(bank), BLOCK):
        block = bank[start : start + BLOCK]
        squares = _squared_distances(block, bank)
        rows = np.arange(len(block))
        squares[rows, start + rows] = -1.0  # itself first, even among copies
        nearest[start : start + BLOCK] = np.argpartition(squares, count - 1, axis=1)[:, :count]
    return nearest


def _squared_distances(points: Float32, others: Float32) -> Float32:
    squares: Float32 = points @ others.T
    squares *= -2
    squares += squared_lengths(points)[:, None]
    squares += squared_lengths(others)
    return np.maximum(squares, 0.0, out=squares)
