"""The output `features` of a network, which no engine returns but many tests compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration.engine.onnxruntime import OnnxRuntimeEngine
    from calibration.imaging.preprocess import Image


def features_of(engine: OnnxRuntimeEngine, frame: Image) -> NDArray[np.float32]:
    """Features of a frame before averaging, (d, h', w')."""
    features: NDArray[np.float32] = engine._run(["features"], frame)[0][0]
    return features
