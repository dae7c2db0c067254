"""Fused networks of any detector on any backbone, whose heads are fitted to noise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.network.fusion import feature_network, fused_network, reduced_shape
from calibration.workstation.fit.backbone_choice import on_grid

if TYPE_CHECKING:
    import onnx

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.contract import Detector


def network_of(backbone: Backbone, detector: Detector, *, divide_brightness: bool = False) -> onnx.ModelProto:
    """The network that calibration would write, but for the numbers in its head."""
    detector = on_grid(detector, backbone)
    shape = reduced_shape(feature_network(backbone, detector, divide_brightness=divide_brightness))
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, FeatureStore(Path(folder), shape) as store:
        for _ in range(10):
            store.append(random.normal(size=shape).astype(np.float32))
        head = detector.fit(store, Folds([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]), backbone.level_channels).head
    return fused_network(backbone, detector, head, divide_brightness=divide_brightness)
