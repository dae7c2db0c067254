"""A picture, and what an exported backbone makes of it, to be held against what torch makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.network.fusion import feature_network
from calibration.onnx_graph import FeatureGraph
from tests.support.network_features import features_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.contract import Detector
    from calibration.imaging.preprocess import Image

    Float32 = NDArray[np.float32]


def frame(size: tuple[int, int]) -> Image:
    """Noise of this (height, width)."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


def image(size: tuple[int, int]) -> Float32:
    """The frame as the backbone's graph gets it, (1, 3, height, width)."""
    return np.ascontiguousarray(frame(size)[..., ::-1].transpose(2, 0, 1)[None] / 255, np.float32)


def exported(backbone: Backbone) -> Float32:
    """Its features in a network of our own, which brings all stages to the resolution of the first."""
    with _engine(backbone, MeanShift(averaging=1)) as engine:
        return features_of(engine, frame(backbone.input_size))[None]


def reduced(backbone: Backbone, detector: Detector) -> Float32:
    """What a detector would learn from."""
    with _engine(backbone, detector) as engine:
        return engine.reduced(frame(backbone.input_size))


def _engine(backbone: Backbone, detector: Detector) -> OnnxRuntimeEngine:
    """The backbone on colours from 0 to 1."""
    (part,) = backbone.graphs
    plain = replace(backbone, graphs=(FeatureGraph(part.model),))
    return OnnxRuntimeEngine(feature_network(plain, detector, divide_brightness=False).SerializeToString(), 1)


def on_first_grid(maps: Sequence[Any]) -> Float32:
    """Torch's feature maps, all at the resolution of the first."""
    import torch  # noqa: PLC0415 - an extra

    size = maps[0].shape[2:]
    together = [torch.nn.functional.interpolate(each, size, mode="bilinear") for each in maps]
    return np.asarray(torch.cat(together, dim=1).detach())


def assert_close(one: Float32, other: Float32) -> None:
    """Alike to 1e-4 of the largest magnitude."""
    assert one.shape == other.shape
    assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()
