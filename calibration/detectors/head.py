"""Heads of the network: from reduced features to the outputs ``map`` and ``score``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol

import numpy as np

from calibration.statistics.scores import EPSILON, scores_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.onnx_graph import FeatureMap, GraphBuilder
    from calibration.statistics.scores import Scores
    from calibration.statistics.smoothing import Smoothing

    Float32 = NDArray[np.float32]


class Scorer(Protocol):
    """Scores reduced features in NumPy."""

    def scores(self, reduced: Float32) -> Scores:
        """Scores of any number of images, (n, d, h, w)."""


class Head(Scorer, Protocol):
    """Scores reduced features in the graph as well, with NumPy as its reference."""

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add nodes with outputs ``map`` (1, h, w) and ``score`` (1,), and initialisers ``head.*``; returns (h, w)."""


@dataclass(frozen=True)
class WhiteningHead:
    """Squared Mahalanobis distance to the good parts at every location; the score is the generalised mean.

    Attributes:
        mean: mu, (locations or 1, d), float32.
        whitening: W, (locations or 1, d, d), float32; with one location, all share it.
        order: Order of the generalised mean; infinity takes the largest distance.
        smoothing: Of the score map, of distances then, whose largest is the score, whatever the order; None: no map of
            pixels.
        modes: Whitened offsets from mu to the means of K kinds of good parts, (locations or 1, K, d), float32; the
            nearest counts. None if mu is the only mean.
    """

    mean: Float32
    whitening: Float32
    order: float = inf
    modes: Float32 | None = None
    smoothing: Smoothing | None = None

    def scores(self, reduced: Float32) -> Scores:
        """T2_l = || W_l (P_l - mu_l) ||^2."""
        count, channels, height, width = reduced.shape
        vectors = reduced.reshape(count, channels, height * width).transpose(2, 0, 1)
        whitened = np.matmul(vectors - self.mean[:, None], self.whitening.transpose(0, 2, 1))
        if self.modes is None:
            distances = np.square(whitened, out=whitened).sum(axis=2)
        else:
            kinds = self.modes.transpose(1, 0, 2)[:, :, None]
            distances = np.min([np.square(whitened - kind).sum(axis=2) for kind in kinds], axis=0)
        return scores_of(distances.T.reshape(count, height, width), self.order, self.smoothing)

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add a batched product if each location has its own matrix, a 1x1 convolution if all share one."""
        grid = reduced.shape[1:]
        attach_squares = self._attach_shared if len(self.whitening) == 1 else self._attach_local
        if self.smoothing is None:
            attach_squares(graph, reduced, "map")
            _attach_generalised_mean(graph, self.order)
            return grid
        squares = attach_squares(graph, reduced, None)
        attach_smoothing(graph, graph.add("Sqrt", squares), grid, self.smoothing)
        _attach_generalised_mean(graph, inf)
        return self.smoothing.size

    def _attach_local(self, graph: GraphBuilder, reduced: FeatureMap, output: str | None) -> str:
        channels, height, width = reduced.shape
        locations = height * width
        flat = graph.add("Reshape", reduced.name, graph.ints(0, channels, locations))
        rows = graph.add("Transpose", flat, perm=[2, 0, 1])
        mean = graph.constant("head.mean", np.broadcast_to(self.mean, (locations, channels))[:, None])
        whitening = graph.constant("head.whitening", self.whitening.transpose(0, 2, 1))
        whitened = graph.add("MatMul", graph.add("Sub", rows, mean), whitening)
        if self.modes is not None:
            each = graph.add("Reshape", whitened, graph.ints(0, -1, 1, channels))
            whitened = graph.add("Sub", each, graph.constant("head.modes", self.modes[:, None]))
        distances = graph.add("ReduceSum", graph.add("Mul", whitened, whitened), graph.ints(-1), keepdims=0)
        if self.modes is not None:
            distances = graph.add("ReduceMin", distances, axes=[2], keepdims=0)
        planes = graph.add("Transpose", distances, perm=[1, 0])
        return graph.add("Reshape", planes, graph.ints(0, height, width), output=output)

    def _attach_shared(self, graph: GraphBuilder, reduced: FeatureMap, output: str | None) -> str:
        channels, height, width = reduced.shape
        grid = (height, width) if len(self.mean) > 1 else (1, 1)
        mean = graph.constant("head.mean", self.mean.T.reshape(1, channels, *grid))
        whitening = graph.constant("head.whitening", self.whitening[0][:, :, None, None])
        whitened = graph.add("Conv", graph.add("Sub", reduced.name, mean), whitening)
        if self.modes is None:
            squares = graph.add("Mul", whitened, whitened)
            return graph.add("ReduceSum", squares, graph.ints(1), keepdims=0, output=output)
        modes = graph.constant("head.modes", self.modes.transpose(1, 2, 0).reshape(1, -1, channels, *grid))
        shift = graph.add("Sub", graph.add("Unsqueeze", whitened, graph.ints(1)), modes)
        distances = graph.add("ReduceSum", graph.add("Mul", shift, shift), graph.ints(2), keepdims=0)
        return graph.add("ReduceMin", distances, axes=[1], keepdims=0, output=output)


def attach_smoothing(graph: GraphBuilder, source: str, grid: tuple[int, int], smoothing: Smoothing) -> None:
    """Add the output ``map`` from the map of this grid, (1, h, w)."""
    rows, columns = smoothing.matrices(grid)
    enlarged = graph.add("MatMul", graph.constant("head.rows", rows), source)
    graph.add("MatMul", enlarged, graph.constant("head.columns", columns), output="map")


def _attach_generalised_mean(graph: GraphBuilder, order: float) -> None:
    if order == inf:
        graph.add("ReduceMax", "map", axes=[1, 2], keepdims=0, output="score")
        return
    largest = graph.add("ReduceMax", "map", axes=[1, 2], keepdims=1)
    relative = graph.add("Div", "map", graph.add("Max", largest, graph.floats(EPSILON)))
    powers = graph.add("ReduceMean", graph.add("Pow", relative, graph.floats(order)), axes=[1, 2], keepdims=1)
    mean = graph.add("Mul", largest, graph.add("Pow", powers, graph.floats(1.0 / order)))
    graph.add("Reshape", mean, graph.ints(-1), output="score")
