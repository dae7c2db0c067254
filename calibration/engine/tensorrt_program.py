"""One engine in GPU memory: load, run, replace the head's weights, release."""

from __future__ import annotations

from contextlib import ExitStack
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.engine.buffers import FRAME, Buffers, Tensor, check_tensors
from calibration.engine.tensorrt_library import process_journal
from calibration.engine.tensorrt_rtx import Kernels
from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import tensorrt as trt
    from numpy.typing import NDArray

    from calibration.engine.cuda import Cuda
    from calibration.engine.tensorrt_library import Journal, Library
    from calibration.imaging.preprocess import Image

_RELOAD = "delete the engine's folder, so that it is rebuilt; if that does not help, restart the device"
_MEMORY = "close other programs, or choose a smaller backbone or --size"


class Program:
    """A loaded engine. The GPU must be open, because TensorRT crashes without one.

    Args:
        library: What built it.
        cuda: The GPU.
        plan: The serialised engine.
        kernels: What TensorRT for RTX compiled for it at an earlier start.

    Raises:
        EngineError: TensorRT cannot load it, memory is short, or it was not built from a fused network.
    """

    def __init__(self, library: Library, cuda: Cuda, plan: bytes, kernels: bytes = b"") -> None:
        tensorrt: ModuleType = library.imported()
        self._name = library.name
        self._rebuild = f"rebuild the engine: {library.build_command}"
        self._tensorrt: ModuleType = tensorrt
        self._cuda = cuda
        self._journal: Journal = process_journal(library)
        self._owner = get_ident()
        self._buffers: Buffers | None = None
        failed = f"{library.name} cannot load the engine"
        with self._journal.explained(what=failed, remedy=_RELOAD), ExitStack() as resources:
            resources.callback(self._drop_references)
            self._runtime: trt.Runtime = tensorrt.Runtime(self._journal.logger)
            self._engine: trt.ICudaEngine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise self._journal.error(what=failed, remedy=_RELOAD)
            self.tensors = _tensors(tensorrt, self._engine)
            check_tensors(self.tensors)
            self._kernels = Kernels(self._engine, kernels) if library.builds_ahead else None
            self._context: trt.IExecutionContext = (
                self._kernels.context(self._engine) if self._kernels else self._engine.create_execution_context()
            )
            if self._context is None:
                raise self._journal.error(what="the GPU has no memory left for the engine", remedy=_MEMORY)
            self._resources = resources.pop_all()

    @property
    def new_kernels(self) -> bytes | None:
        """What was compiled when it was loaded, to be kept; None without anything to keep."""
        return self._kernels.serialised() if self._kernels and self._kernels.are_new else None

    def attach(self, *, mapped: bool) -> None:
        """Allocate buffers, after releasing those before."""
        self._detach()
        self._buffers = Buffers(self._cuda, self.tensors, mapped=mapped)
        for name, address in self._buffers.addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._journal.error(
                    what=f"{self._name} does not accept the buffer for {name}", remedy=self._rebuild
                )

    def run(self, frame: Image) -> list[NDArray[Any]]:
        """Score and map of one frame, each with a batch of one. No work is in flight afterwards, also after an error.

        Raises:
            EngineError: The frame has another size, TensorRT or the GPU fails, or another thread calls.
        """
        if get_ident() != self._owner:
            raise EngineError(
                what="the engine is used from a thread that did not open it",
                remedy="this is a bug in shiftwatch: please report it",
            )
        if self._buffers is None:
            raise EngineError(what="the engine is not open", remedy="restart the agent")
        try:
            self._buffers.send(frame)
            self._journal.errors.clear()
            if not self._context.execute_async_v3(self._cuda.stream):
                raise self._journal.error(
                    what=f"{self._name} cannot run the network",
                    remedy=f"restart; if it happens again, {self._rebuild}",
                )
            self._buffers.fetch()
        finally:
            self._cuda.synchronise()
        return self._buffers.outputs()

    def run_blank(self) -> None:
        """Run on a black frame, to warm up or to measure."""
        shape = next(tensor.shape for tensor in self.tensors if tensor.name == FRAME)
        self.run(np.zeros(shape[1:], np.uint8))

    def refit(self, head: Mapping[str, NDArray[Any]]) -> None:
        """Replace the head's weights, given by ONNX name. The caller must check the scores afterwards.

        Raises:
            EngineError: TensorRT refuses. Some weights may already be replaced, so the engine is closed.
        """
        try:
            self._cuda.synchronise()
            with self._journal.explained(what=f"{self._name} cannot replace the head's weights", remedy=self._rebuild):
                self._refit(head)
        except EngineError:
            self.close()
            raise

    def _refit(self, head: Mapping[str, NDArray[Any]]) -> None:
        arrays = {name: np.ascontiguousarray(weights, np.float32) for name, weights in head.items()}
        refitter: trt.Refitter = self._tensorrt.Refitter(self._engine, self._journal.logger)
        try:
            for name, weights in arrays.items():
                if not refitter.set_named_weights(name, self._tensorrt.Weights(weights)):
                    raise self._journal.error(
                        what=f"{self._name} does not accept new weights for {name}, {weights.shape}",
                        remedy=self._rebuild,
                    )
            missing: list[str] = refitter.get_missing_weights()
            if missing:
                raise EngineError(what=f"the new head lacks {', '.join(missing)}", remedy=self._rebuild)
            if not refitter.refit_cuda_engine():
                raise self._journal.error(what=f"{self._name} cannot replace the head's weights", remedy=self._rebuild)
        finally:
            del refitter  # it refers to the engine, and an error's traceback would keep it alive

    def serialised(self) -> bytes:
        """The engine with its current weights, whose head can be replaced again."""
        self._cuda.synchronise()
        with self._journal.explained(what=f"{self._name} cannot serialise the engine", remedy=self._rebuild):
            config: trt.ISerializationConfig = self._engine.create_serialization_config()
            keep_refittable = getattr(self._tensorrt.SerializationFlag, "INCLUDE_REFIT", None)
            if keep_refittable is not None:  # since 10.14
                config.set_flag(keep_refittable)
            return bytes(self._engine.serialize_with_config(config))

    def activation_bytes(self) -> int:
        """GPU memory that one run needs in addition to weights and buffers."""
        return int(self._engine.device_memory_size_v2)

    def close(self) -> None:
        """Release buffers, then context, engine and runtime. Calling it again does nothing."""
        try:
            self._detach()
        finally:
            self._resources.close()

    def _detach(self) -> None:
        if self._buffers is not None:
            buffers, self._buffers = self._buffers, None
            try:
                self._cuda.synchronise()
            finally:
                buffers.release()

    def _drop_references(self) -> None:
        """Pybind11 destroys each object with its last reference: dependent objects go first."""
        self._context = None
        self._kernels = None
        self._engine = None
        self._runtime = None


def _tensors(tensorrt: ModuleType, engine: trt.ICudaEngine) -> tuple[Tensor, ...]:
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    return tuple(
        Tensor(
            name,
            tuple(engine.get_tensor_shape(name)),
            np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name))),
            engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT,
        )
        for name in names
    )
