"""A backbone that is none of ours: what any ONNX file may bring."""

from __future__ import annotations

import numpy as np

from calibration.backbones.backbone import Backbone
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder
from tests.support.washers import SIDE


def random_backbone(side: int = SIDE) -> Backbone:
    """Two layers of random weights: 12 channels at a stride of 8, which divides the side."""
    random = np.random.default_rng(0)
    graph = GraphBuilder("random")
    weights = [
        graph.constant("first", random.normal(size=(8, 3, 5, 5)).astype(np.float32) / 8),
        graph.constant("second", random.normal(size=(12, 8, 3, 3)).astype(np.float32) / 8),
    ]
    first = graph.add("Relu", graph.add("Conv", "image", weights[0], strides=[4, 4], pads=[2, 2, 2, 2]))
    graph.add("Conv", first, weights[1], strides=[2, 2], pads=[1, 1, 1, 1], output="features")
    model = graph.model({"image": (FLOAT, (1, 3, side, side))}, {"features": (FLOAT, (1, 12, side // 8, side // 8))})
    return Backbone((FeatureGraph(model, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),), "random")
