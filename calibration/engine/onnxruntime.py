"""ONNX Runtime: the engine that runs everywhere on the CPU, and with CUDA where its libraries are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime as ort

from calibration.engine.contract import Inference
from calibration.engine.cores import Cores
from calibration.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.imaging.preprocess import Image

_WARM_UP_RUNS = 3
# TF32 keeps ten bits of each factor: scores would differ from those of calibration.
_PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
}
# What ONNX Runtime raises has no common base below Exception that it exports; these are the documented ones.
REFUSALS = (
    ort.capi.onnxruntime_pybind11_state.EPFail,
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
        threads: CPU threads of one inference; 0 takes one for each core.
        provider: What computes.
    """

    tolerance = 0.0

    def __init__(self, network: Path | bytes, threads: int = 0, provider: Literal["cpu", "cuda"] = "cpu") -> None:
        self.backend = f"onnxruntime-{provider}"
        self._provider = provider
        self._network = network if isinstance(network, bytes) else str(network)
        self._threads = threads
        self._cores = Cores(threads)
        self._session: Any = None

    def __enter__(self) -> Self:
        """Load and warm up."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Between two frames the cores belong to decoding and to the line's other programs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._cores.affinities is not None:
            options.add_session_config_entry("session.intra_op_thread_affinities", self._cores.affinities)
        try:
            self._session = self._opened(options)
        except (*REFUSALS, RuntimeError, ValueError) as error:  # the last two come from a GPU that does not work
            raise EngineError(
                what=f"ONNX Runtime {ort.__version__} refuses the network: {str(error).splitlines()[0]}",
                remedy="use the ONNX Runtime version the bundle was made with (see its manifest), or build it again",
            ) from error
        self._refuse_another_provider()
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

    def _opened(self, options: ort.SessionOptions) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
        if self._provider == "cuda" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds the libraries that pip installed
        # Without `enable_fallback=0` a run that fails on the GPU goes on, for ever after, on the CPU.
        return ort.InferenceSession(self._network, options, providers=_PROVIDERS[self._provider], enable_fallback=0)

    def _refuse_another_provider(self) -> None:
        """ONNX Runtime takes the CPU where CUDA's libraries do not load, and says so only in its log."""
        taken = self._session.get_providers()[0]
        if taken.lower() != f"{self._provider}executionprovider":
            self._session = None
            raise EngineError(
                what=f"ONNX Runtime {ort.__version__} cannot use {self._provider.upper()} and took {taken}",
                remedy="install the CUDA and cuDNN that it was built for: pip install 'onnxruntime-gpu[cuda,cudnn]'",
            )

    def _run(self, outputs: list[str], frame: Image) -> list[NDArray[np.float32]]:
        try:
            with self._cores.left_to_threads():
                results: list[NDArray[np.float32]] = self._session.run(outputs, {"frame": frame[None]})
        except REFUSALS as error:
            raise EngineError(
                what=f"ONNX Runtime cannot run the network: {str(error).splitlines()[0]}",
                remedy="check free memory, and the bundle: shiftwatch-calibrate verify BUNDLE",
            ) from error
        return results
