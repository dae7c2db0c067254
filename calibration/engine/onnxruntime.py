"""ONNX Runtime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from calibration.engine import Inference
from calibration.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.preprocess import Image

_WARM_UP_RUNS = 3
# What ONNX Runtime raises has no common base below Exception that it exports; these are the documented ones.
REFUSALS = (
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.InvalidGraph,
    ort.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    ort.capi.onnxruntime_pybind11_state.NoSuchFile,
    ort.capi.onnxruntime_pybind11_state.NotImplemented,
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
)


class OnnxRuntimeEngine:
    """The fused network in ONNX Runtime.

    Args:
        network: Path of the ONNX file, or its content.
        threads: Threads of one inference; 0 takes one for each core.
    """

    backend = "onnxruntime-cpu"

    def __init__(self, network: Path | bytes, threads: int = 0) -> None:
        self._network = network if isinstance(network, bytes) else str(network)
        self._threads = threads
        self._session: Any = None

    def __enter__(self) -> Self:
        """Load and warm up."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Between two frames the cores belong to decoding and to the line's other programs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = ort.InferenceSession(self._network, options, providers=["CPUExecutionProvider"])
        except REFUSALS as error:
            raise EngineError(
                what=f"ONNX Runtime {ort.__version__} refuses the network: {str(error).splitlines()[0]}",
                remedy="use the ONNX Runtime version the bundle was made with (see its manifest), or build it again",
            ) from error
        blank = np.zeros(self._session.get_inputs()[0].shape[1:], np.uint8)
        for _ in range(_WARM_UP_RUNS):
            self._run(["features"], blank)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the session."""
        self._session = None

    def __call__(self, frame: Image) -> Inference:
        """Score one preprocessed frame."""
        score, score_map = self._run(["score", "map"], frame)
        return Inference(float(score[0]), score_map[0])

    def features(self, frame: Image) -> NDArray[np.float32]:
        """Features before averaging, (d, h', w')."""
        features: NDArray[np.float32] = self._run(["features"], frame)[0][0]
        return features

    def reduced(self, frame: Image) -> NDArray[np.float32]:
        """What the detector learns from, (d, h, w); only of a network made by ``network.feature_network``."""
        reduced: NDArray[np.float32] = self._run(["reduced"], frame)[0][0]
        return reduced

    def _run(self, outputs: list[str], frame: Image) -> list[NDArray[np.float32]]:
        try:
            results: list[NDArray[np.float32]] = self._session.run(outputs, {"frame": frame[None]})
        except REFUSALS as error:
            raise EngineError(
                what=f"ONNX Runtime cannot run the network: {str(error).splitlines()[0]}",
                remedy="check free memory, and the bundle: shiftwatch-calibrate verify BUNDLE",
            ) from error
        return results
