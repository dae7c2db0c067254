"""Heads end the network: from reduced features to the outputs ``map`` and ``score``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.graph import FeatureMap, GraphBuilder

    Float32 = NDArray[np.float32]


class Scores(NamedTuple):
    """What a head says of some images: ``score`` (n,) and ``map`` (n, h, w), float32."""

    score: Float32
    map: Float32


class Head(Protocol):
    """Scores reduced features, in the graph and, for calibration and as the graph's reference, in NumPy."""

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add the nodes whose outputs are ``map`` (1, h, w) and ``score`` (1,); returns (h, w).

        Its initialisers are named ``head.*``.
        """

    def scores(self, reduced: Float32) -> Scores:
        """The same in NumPy, for any number of images, (n, d, h, w)."""


@dataclass(frozen=True)
class WhiteningHead:
    """Mahalanobis distance to the good parts, squared, at every location; the score is the largest.

    Attributes:
        mean: mu, (locations or 1, d), float32.
        whitening: W, (locations or 1, d, d), float32; one location means all share it.
    """

    mean: Float32
    whitening: Float32

    def scores(self, reduced: Float32) -> Scores:
        """T2_l = || W_l (P_l - mu_l) ||^2."""
        count, channels, height, width = reduced.shape
        vectors = reduced.reshape(count, channels, height * width).transpose(2, 0, 1)
        whitened = np.matmul(vectors - self.mean[:, None], self.whitening.transpose(0, 2, 1))
        distances: Float32 = np.square(whitened, out=whitened).sum(axis=2).T
        return Scores(distances.max(axis=1), distances.reshape(count, height, width))

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """A batched product where each location has its own matrix, a 1x1 convolution where all share one."""
        if len(self.whitening) == 1:
            self._attach_shared(graph, reduced)
        else:
            self._attach_local(graph, reduced)
        graph.add("ReduceMax", "map", axes=[1, 2], keepdims=0, output="score")
        return reduced.shape[1:]

    def _attach_local(self, graph: GraphBuilder, reduced: FeatureMap) -> None:
        channels, height, width = reduced.shape
        locations = height * width
        flat = graph.add("Reshape", reduced.name, graph.ints(1, channels, locations))
        rows = graph.add("Transpose", flat, perm=[2, 0, 1])
        mean = graph.constant("head.mean", np.broadcast_to(self.mean, (locations, channels))[:, None])
        whitening = graph.constant("head.whitening", self.whitening.transpose(0, 2, 1))
        whitened = graph.add("MatMul", graph.add("Sub", rows, mean), whitening)
        distances = graph.add("ReduceSum", graph.add("Mul", whitened, whitened), graph.ints(2), keepdims=0)
        graph.add("Reshape", distances, graph.ints(1, height, width), output="map")

    def _attach_shared(self, graph: GraphBuilder, reduced: FeatureMap) -> None:
        channels, height, width = reduced.shape
        grid = (height, width) if len(self.mean) > 1 else (1, 1)
        mean = graph.constant("head.mean", self.mean.T.reshape(1, channels, *grid))
        whitening = graph.constant("head.whitening", self.whitening[0][:, :, None, None])
        whitened = graph.add("Conv", graph.add("Sub", reduced.name, mean), whitening)
        graph.add("ReduceSum", graph.add("Mul", whitened, whitened), graph.ints(1), keepdims=0, output="map")
