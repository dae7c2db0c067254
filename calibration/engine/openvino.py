"""The OpenVINO engine: on the processors of Intel and others, and on the GPU inside many of Intel's processors.

OpenVINO is imported when an engine is opened, because most devices do not have it.
"""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calibration.engine.contract import Inference
from calibration.engine.cpu_cores import usable_cores
from calibration.errors import EngineError, install_extra

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.imaging.preprocess import Image

    Precision = Literal["f32", "bf16", "as in the network"]

_WARM_UP_RUNS = 3
_LARGEST_INPUT = 2**24  # pixels
_OUTPUTS = ("score", "map")
_MAP_RANK = 3
_CALIBRATE = "it is not a network that calibration wrote; copy the bundle again, or calibrate again"
# OpenVINO may lower the precision of all layers unless these settings forbid it.
_PRECISIONS: dict[Precision, dict[str, str]] = {
    "f32": {"INFERENCE_PRECISION_HINT": "f32"},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
    "as in the network": {"EXECUTION_MODE_HINT": "ACCURACY"},
}
# Golden frames are few: in BF16, which has 3 bits fewer than FP16, the worst of 583 magnetic tiles was 1.3 to 5.4 times
# as far off as the worst golden frame.
_TOLERANCES: dict[Precision, float] = {"f32": 0.0, "bf16": 0.005, "as in the network": 0.03}


def library() -> ModuleType:
    """Import the module ``openvino``, and keep it from reporting this to its makers over the network.

    Raises:
        EngineError: It is missing or cannot be loaded.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # documented: its import then fails
    try:
        import openvino  # noqa: PLC0415 - absent on most machines
    except (ImportError, OSError) as error:  # OSError: a library that it needs is missing
        raise EngineError(
            what=f"OpenVINO cannot be loaded: {error}", remedy=f"install it: {install_extra('openvino')}"
        ) from error
    found: ModuleType = openvino
    return found


def devices() -> list[tuple[str, list[str]]]:
    """Each processor that OpenVINO can use, ``CPU`` first, and what it computes natively: ``FP32``, ``BF16``, ...

    Raises:
        EngineError: OpenVINO cannot be loaded, or finds none.
    """
    try:
        core = library().Core()
        return [(name, list(core.get_property(name, "OPTIMIZATION_CAPABILITIES"))) for name in core.available_devices]
    except RuntimeError as error:
        raise EngineError(
            what=f"OpenVINO finds no processor: {_reason(error)}",
            remedy="reinstall it: pip install --force-reinstall openvino",
        ) from error


def require_compiling() -> None:
    """Check that this process may run code that it has written itself, as OpenVINO does.

    Raises:
        EngineError: It may not.
    """
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError as error:
        raise EngineError(
            what="OpenVINO compiles the network, which this process may not do",
            remedy="set MemoryDenyWriteExecute=no: systemctl edit shiftwatch-agent@",
        ) from error


class OpenVinoEngine:
    """The fused network in OpenVINO.

    Args:
        network: Path of the ONNX file, or its content.
        threads: CPU threads of one inference; 0 uses one for each core.
        precision: What each layer is computed in.
        device: Processor that runs it.
    """

    def __init__(
        self,
        network: Path | bytes,
        threads: int = 0,
        precision: Precision = "f32",
        device: Literal["cpu", "gpu"] = "cpu",
    ) -> None:
        suffix = {"f32": "", "bf16": "-bf16", "as in the network": "-fp16"}[precision]
        self.backend = f"openvino-{device}{suffix}"
        self.tolerance = _TOLERANCES[precision]
        self._network = network
        self._device = device.upper()
        self._properties = {"PERFORMANCE_HINT": "LATENCY", **_PRECISIONS[precision]}
        if device == "cpu":
            # Pinned threads include the caller, which the system then wakes on a core that another one has.
            self._properties |= {"INFERENCE_NUM_THREADS": str(threads or usable_cores()), "ENABLE_CPU_PINNING": "NO"}
        self._request: Any = None
        self._frame = np.zeros((0, 0, 0), np.uint8)

    def __enter__(self) -> Self:
        """Load and warm up."""
        openvino = library()
        try:
            content = self._network if isinstance(self._network, bytes) else self._network.read_bytes()
            core = openvino.Core()
            model = core.read_model(content)
            self._frame = np.zeros(_frame_shape(model), np.uint8)
            scoring = openvino.Model([model.output(name) for name in _OUTPUTS], model.get_parameters())
            self._request = core.compile_model(scoring, self._device, self._properties).create_infer_request()
            self._request.set_input_tensor(openvino.Tensor(self._frame[None], shared_memory=True))
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: a message that is not UTF-8
            raise EngineError(
                what=f"OpenVINO {openvino.__version__.partition('-')[0]} cannot load the network: {_reason(error)}",
                remedy="use another backend, or calibrate again",
            ) from error
        for _ in range(_WARM_UP_RUNS):
            self._run()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the network."""
        self._request = None

    def __call__(self, frame: Image) -> Inference:
        """Score one preprocessed frame."""
        if frame.shape != self._frame.shape or frame.dtype != self._frame.dtype:
            raise EngineError(
                what=f"the network takes uint8 {self._frame.shape}, the frame is {frame.dtype} {frame.shape}",
                remedy="preprocess the frame with the bundle's own preprocessing",
            )
        np.copyto(self._frame, frame)
        score, score_map = self._run()
        if score.size != 1 or score_map.ndim != _MAP_RANK:
            raise EngineError(
                what=f"the network gives scores {score.shape} and maps {score_map.shape}, not one of each",
                remedy=_CALIBRATE,
            )
        return Inference(float(score.item()), score_map[0])

    def _run(self) -> list[NDArray[np.float32]]:
        try:
            self._request.infer()
            return [self._request.get_output_tensor(number).data.copy() for number in range(len(_OUTPUTS))]
        except RuntimeError as error:
            raise EngineError(
                what=f"OpenVINO cannot run the network: {_reason(error)}",
                remedy="check free memory, and the bundle: shiftwatch-calibrate verify BUNDLE",
            ) from error


def _frame_shape(model: Any) -> tuple[int, int, int]:  # noqa: ANN401 - OpenVINO is absent on most machines
    """(height, width, 3) of a frame."""
    inputs = [
        (sorted(each.get_names()), each.get_element_type().get_type_name(), str(each.get_partial_shape()))
        for each in model.inputs
    ]
    if [each[:2] for each in inputs] == [(["frame"], "u8")] and not model.is_dynamic():
        match tuple(model.inputs[0].get_shape()):
            case (1, height, width, 3) if height * width <= _LARGEST_INPUT:
                return height, width, 3
    raise EngineError(
        what=f"the network takes {inputs!a:.200}, not one frame (1, height, width, 3) of bytes", remedy=_CALIBRATE
    )


def _reason(error: Exception) -> str:
    """The line that says most: those before it name places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if not line.startswith(("Exception from", "Check '"))), lines[-1])
