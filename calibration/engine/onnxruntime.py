"""The ONNX Runtime engine: on any CPU, and on a GPU where the CUDA libraries are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from calibration.engine.contract import Inference
from calibration.engine.cpu_affinity import Cores
from calibration.engine.cpu_cores import usable_cores
from calibration.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.imaging.preprocess import Image

_WARM_UP_RUNS = 3
_LARGEST_INPUT = 2**24  # pixels
# TF32 keeps ten bits of each factor, so scores would differ from calibration.
_PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
}
# ONNX Runtime exports no common base class for its exceptions; these are the documented ones.
REFUSALS = (
    _state.EPFail,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
)


class OnnxRuntimeEngine:
    """The fused network in ONNX Runtime.

    Args:
        network: Path of the ONNX file, or its content.
        threads: CPU threads of one inference; 0 uses one for each core.
        provider: Processor that runs it.
    """

    tolerance = 0.0

    def __init__(self, network: Path | bytes, threads: int = 0, provider: Literal["cpu", "cuda"] = "cpu") -> None:
        self.backend = f"onnxruntime-{provider}"
        self._provider = provider
        self._network = network if isinstance(network, bytes) else _loadable(network)
        self._threads = threads
        self._cores = Cores(threads)
        self._session: Any = None

    def __enter__(self) -> Self:
        """Load and warm up."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads or usable_cores()
        options.log_severity_level = 3
        # Between two frames the cores are needed for decoding and other programs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._cores.affinities is not None:
            options.add_session_config_entry("session.intra_op_thread_affinities", self._cores.affinities)
        try:
            self._session = self._open_session(options)
        except (*REFUSALS, RuntimeError, ValueError) as error:  # a broken GPU raises the last two
            raise EngineError(
                what=f"ONNX Runtime {ort.__version__} cannot load the network: {str(error).splitlines()[0]}",
                remedy="use the ONNX Runtime version in the bundle's manifest, or calibrate again",
            ) from error
        self._check_provider()
        blank = np.zeros(self._frame_shape(), np.uint8)
        for _ in range(_WARM_UP_RUNS):
            self._run(None, blank)
        return self

    def _frame_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of a frame."""
        inputs = [(each.name, each.type, each.shape) for each in self._session.get_inputs()]
        match inputs:
            case [("frame", "tensor(uint8)", [1, int(height), int(width), 3])] if height * width <= _LARGEST_INPUT:
                return height, width, 3
        raise EngineError(
            what=f"the network takes {inputs!a:.200}, not one frame (1, height, width, 3) of bytes",
            remedy="it is not a network that calibration wrote; copy the bundle again, or calibrate again",
        )

    def __exit__(self, *_: object) -> None:
        """Release the session."""
        self._session = None

    def __call__(self, frame: Image) -> Inference:
        """Score one preprocessed frame."""
        score, score_map = self._run(["score", "map"], frame)
        if score.size != 1 or score_map.ndim != 3:  # noqa: PLR2004
            raise EngineError(
                what=f"the network gives scores {score.shape} and maps {score_map.shape}, not one of each",
                remedy="it is not a network that calibration wrote; copy the bundle again, or calibrate again",
            )
        return Inference(float(score.item()), score_map[0])

    def reduced(self, frame: Image) -> NDArray[np.float32]:
        """Features that the detector is fitted to, (d, h, w). Needs a network from `fusion.feature_network`."""
        reduced: NDArray[np.float32] = self._run(["reduced"], frame)[0][0]
        return reduced

    def _open_session(self, options: ort.SessionOptions) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
        if self._provider == "cuda" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds CUDA libraries that pip installed
        # Without `enable_fallback=0` a run that fails on the GPU silently moves to the CPU for good.
        return ort.InferenceSession(self._network, options, providers=_PROVIDERS[self._provider], enable_fallback=0)

    def _check_provider(self) -> None:
        """ONNX Runtime uses the CPU if the CUDA libraries do not load, and reports this only in its log."""
        taken = self._session.get_providers()[0]
        if taken.lower() != f"{self._provider}executionprovider":
            self._session = None
            raise EngineError(
                what=f"ONNX Runtime {ort.__version__} cannot use {self._provider.upper()} and uses {taken} instead",
                remedy="install the CUDA and cuDNN that it was built for: pip install 'onnxruntime-gpu[cuda,cudnn]'",
            )

    def _run(self, outputs: list[str] | None, frame: Image) -> list[NDArray[np.float32]]:
        try:
            with self._cores.left_to_threads():
                results: list[NDArray[np.float32]] = self._session.run(outputs, {"frame": frame[None]})
        except REFUSALS as error:
            raise EngineError(
                what=f"ONNX Runtime cannot run the network: {str(error).splitlines()[0]}",
                remedy="check free memory, and the bundle: shiftwatch-calibrate verify BUNDLE",
            ) from error
        return results


def _loadable(path: Path) -> str | bytes:
    """The path, or the content where ONNX Runtime does not take the path: bytes that are not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)
