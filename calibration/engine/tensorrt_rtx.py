"""What TensorRT for RTX has and TensorRT has not: GPUs to build for ahead of time, and compiled kernels to keep."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from calibration.engine.tensorrt_library import TENSORRT_RTX
from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import tensorrt as trt

log = logging.getLogger(__name__)


_OTHER_GPUS = {
    "7.5": "Turing (RTX 20, T4), for which the library has no matrix product in FP32",
    "8.7": "a Jetson Orin",
    "9.0": "a GPU for data centres (Hopper)",
    "10.0": "a GPU for data centres (Blackwell)",
    "10.3": "a GPU for data centres (Blackwell)",
    "11.0": "a Jetson Thor",
}


def refuse_other_gpus(compute_capability: str) -> None:
    """Refuse a GPU for which TensorRT for RTX cannot build.

    Raises:
        EngineError: It cannot; the message names those it can build for, and what to use instead.
    """
    possible = TENSORRT_RTX.compute_capabilities
    if compute_capability not in possible:
        known = _OTHER_GPUS.get(compute_capability)
        raise EngineError(
            what=f"TensorRT for RTX cannot build for compute capability {compute_capability}"
            + (f", which is {known}" if known else "")
            + f"; it can for {', '.join(possible)}",
            remedy="on such a GPU use TensorRT: run `shiftwatch-calibrate build BUNDLE` on that device"
            if re.fullmatch(r"\d+\.\d", compute_capability)
            else "run `shiftwatch-agent doctor` on the device: it shows the GPU's compute capability",
        )


def set_targets(tensorrt: ModuleType, config: trt.IBuilderConfig, compute_capabilities: Sequence[str]) -> None:
    """Build for GPUs of these compute capabilities; without any, for all from 8.0.

    Raises:
        EngineError: The installed version does not know one.
    """
    config.num_compute_capabilities = len(compute_capabilities)
    for index, capability in enumerate(compute_capabilities):
        target = getattr(tensorrt.ComputeCapability, f"SM{capability.replace('.', '')}", None)
        if target is None or not config.set_compute_capability(target, index):
            raise EngineError(
                what=f"TensorRT for RTX {tensorrt.__version__} does not build for compute capability {capability}",
                remedy="update it, or build without --compute-capability",
            )


class Kernels:
    """The GPU's kernels of one engine: compiled when its context is made, unless those kept fit.

    Args:
        engine: The loaded engine.
        kept: Kernels of an earlier start; empty without any.

    Attributes:
        are_new: Whether they had to be compiled.
    """

    def __init__(self, engine: trt.ICudaEngine, kept: bytes) -> None:
        self._config: trt.IRuntimeConfig = engine.create_runtime_config()
        self._cache: trt.IRuntimeCache = self._config.create_runtime_cache()
        self.are_new = not (kept and self._cache.deserialize(kept))
        if kept and self.are_new:
            log.info("the kept kernels are damaged, or of another GPU, driver or version; compiling again")
        self._config.set_runtime_cache(self._cache)

    def context(self, engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
        """An execution context that uses them; None if memory is short."""
        return engine.create_execution_context(self._config)

    def serialised(self) -> bytes:
        """All that was compiled so far."""
        return bytes(self._cache.serialize())
