"""Backbones of two levels with random weights: quick, and on two grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from calibration.backbones.backbone import Backbone
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder
from tests.support.washers import SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CHANNELS = (10, 6)
GRIDS = ((8, 8), (4, 4))


def two_levels() -> Backbone:
    """10 channels on 8x8 and 6 channels on 4x4."""
    random = np.random.default_rng(0)
    graph = GraphBuilder("random")
    weights = [
        graph.constant(name, random.normal(size=shape).astype(np.float32) / 4)
        for name, shape in (("first", (8, 3, 5, 5)), ("second", (10, 8, 3, 3)), ("third", (6, 10, 3, 3)))
    ]
    first = graph.add("Relu", graph.add("Conv", "image", weights[0], strides=[4, 4], pads=[2, 2, 2, 2]))
    fine = graph.add("Conv", first, weights[1], strides=[2, 2], pads=[1, 1, 1, 1], output="fine")
    graph.add("Conv", graph.add("Relu", fine), weights[2], strides=[2, 2], pads=[1, 1, 1, 1], output="coarse")
    outputs = zip(("fine", "coarse"), CHANNELS, GRIDS, strict=True)
    model = graph.model(
        {"image": (FLOAT, (1, 3, SIDE, SIDE))},
        {name: (FLOAT, (1, channels, *grid)) for name, channels, grid in outputs},
    )
    return Backbone((FeatureGraph(model, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),), "two levels")


def two_fields(height: int = SIDE, width: int = SIDE) -> Backbone:
    """Mean contrast of patches of 32 pixels every 4, and of 64 every 16, by 8 filters: what ``patch_svdd`` takes."""
    random = np.random.default_rng(0)
    graph = GraphBuilder("fields")
    filters = random.normal(size=(8, 3, 5, 5))
    filters -= filters.mean(axis=(2, 3), keepdims=True)
    weights = graph.constant("filters", filters.astype(np.float32))
    contrast = graph.add("Abs", graph.add("Conv", "image", weights, strides=[2, 2]))
    shapes = {}
    for name, side, stride in (("fine", 32, 4), ("coarse", 64, 16)):
        window = side // 2 - 2
        graph.add(
            "AveragePool", contrast, kernel_shape=[window, window], strides=[stride // 2, stride // 2], output=name
        )
        shapes[name] = (1, 8, *((each - side) // stride + 1 for each in (height, width)))
    model = graph.model(
        {"image": (FLOAT, (1, 3, height, width))}, {name: (FLOAT, shape) for name, shape in shapes.items()}
    )
    return Backbone((FeatureGraph(model, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),), "two fields")


def wide_levels() -> Backbone:
    """512 channels on 8x8 and 1024 on 4x4: levels like those of WideResNet-50, on small grids."""
    random = np.random.default_rng(0)
    graph = GraphBuilder("wide")
    first, second = (
        graph.constant(name, (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))
        for name, shape in (("first", (512, 3, 9, 9)), ("second", (1024, 512, 1, 1)))
    )
    seen = graph.add("Conv", "image", first, strides=[8, 8], pads=[4, 4, 4, 4])
    fine = graph.add("Relu", seen, output="fine")
    halved = graph.add("AveragePool", fine, kernel_shape=[2, 2], strides=[2, 2])
    graph.add("Relu", graph.add("Conv", halved, second), output="coarse")
    model = graph.model(
        {"image": (FLOAT, (1, 3, SIDE, SIDE))},
        {"fine": (FLOAT, (1, 512, *GRIDS[0])), "coarse": (FLOAT, (1, 1024, *GRIDS[1]))},
    )
    return Backbone((FeatureGraph(model, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),), "wide levels")


def levels_of(backbone: Backbone, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
    """Outputs of the backbone alone for network inputs (height, width, 3): each level (n, c, h, w)."""
    (graph,) = backbone.graphs
    session = ort.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = [((frame[..., ::-1] / 255 - graph.mean) / graph.std).transpose(2, 0, 1)[None] for frame in frames]
    outputs = [session.run(None, {"image": image.astype(np.float32)}) for image in images]
    return [np.concatenate(level).astype(np.float64) for level in zip(*outputs, strict=True)]
