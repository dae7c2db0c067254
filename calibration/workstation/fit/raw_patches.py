"""Patches without an encoder, what Patch SVDD is compared with: 8x8 means of their pixels."""

from __future__ import annotations

import numpy as np

from calibration.backbones.backbone import Backbone
from calibration.detectors.patch_svdd import COARSE, FINE, refuse_unfit_size
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder

_CELLS = 8
_CHANNELS = 3 * _CELLS**2


def raw_patches(height: int, width: int) -> Backbone:
    """Both sizes of patches of a frame, each as 192 means of 4x4 or of 8x8 pixels.

    Raises:
        SettingError: A side is not a multiple of 16, or less than 64.
    """
    refuse_unfit_size(height, width)
    graph = GraphBuilder("raw_patches")
    each_cell = np.eye(_CHANNELS, dtype=np.float32).reshape(_CHANNELS, 3, _CELLS, _CELLS)
    copied = graph.constant("each_cell", each_cell)
    for name, field in (("fine", FINE), ("coarse", COARSE)):
        cell = field.side // _CELLS
        means = graph.add("AveragePool", "image", kernel_shape=[cell] * 2, strides=[cell] * 2)
        graph.add("Conv", means, copied, strides=[field.stride // cell] * 2, output=name)
    grids = {name: field.grid(height, width) for name, field in (("fine", FINE), ("coarse", COARSE))}
    model = graph.model(
        {"image": (FLOAT, (1, 3, height, width))},
        {name: (FLOAT, (1, _CHANNELS, *grid)) for name, grid in grids.items()},
    )
    return Backbone((FeatureGraph(model),), "raw patches")
