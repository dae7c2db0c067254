"""One engine in the GPU's memory: loaded, run, its head exchanged, released."""

from __future__ import annotations

from contextlib import ExitStack
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.engine.buffers import FRAME, Buffers, Tensor, refuse_unfit
from calibration.engine.tensorrt_library import journal
from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    import tensorrt as trt
    from numpy.typing import NDArray

    from calibration.engine.cuda import Cuda
    from calibration.engine.tensorrt_library import Journal
    from calibration.imaging.preprocess import Image

_RELOAD = "delete the engine's folder, it is then built again; if that does not help, restart the device"
_BUILD = "build the engine again: shiftwatch-calibrate build BUNDLE"
_MEMORY = "close other programs, or choose a smaller backbone or --size"


class Program:
    """A serialised engine, loaded.

    Args:
        tensorrt: TensorRT's library.
        cuda: A GPU in use: TensorRT crashes where there is none.
        plan: The serialised engine.

    Raises:
        EngineError: TensorRT refuses it, memory is short, or it is not of a fused network.
    """

    def __init__(self, tensorrt: ModuleType, cuda: Cuda, plan: bytes) -> None:
        self._tensorrt: ModuleType = tensorrt
        self._cuda = cuda
        self._said: Journal = journal(tensorrt)
        self._owner = get_ident()
        self._buffers: Buffers | None = None
        with self._said.explained(what="TensorRT cannot load the engine", remedy=_RELOAD), ExitStack() as resources:
            resources.callback(self._let_go)
            self._runtime: trt.Runtime = tensorrt.Runtime(self._said.logger)
            self._engine: trt.ICudaEngine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise self._said.refusal(what="TensorRT cannot load the engine", remedy=_RELOAD)
            self.tensors = _tensors(tensorrt, self._engine)
            refuse_unfit(self.tensors)
            self._context: trt.IExecutionContext = self._engine.create_execution_context()
            if self._context is None:
                raise self._said.refusal(what="the GPU has no memory left for the engine", remedy=_MEMORY)
            self._resources = resources.pop_all()

    def attach(self, *, mapped: bool) -> None:
        """Give it buffers; those it had are released first.

        Args:
            mapped: Let the GPU work in the CPU's memory instead of copying.
        """
        self._detach()
        self._buffers = Buffers(self._cuda, self.tensors, mapped=mapped)
        for name, address in self._buffers.addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._said.refusal(what=f"TensorRT takes no buffer for {name}", remedy=_BUILD)

    def run(self, frame: Image, names: Sequence[str]) -> list[NDArray[Any]]:
        """The named outputs for one frame; nothing is in flight afterwards, whatever happens.

        Raises:
            EngineError: The frame does not fit, TensorRT or the GPU fails, or another thread calls.
        """
        if get_ident() != self._owner:
            raise EngineError(
                what="the engine is used from a thread that did not open it",
                remedy="report this: it is a fault in shiftwatch",
            )
        buffers = self._buffers
        if buffers is None:
            raise EngineError(what="the engine is not open", remedy="open it again: restart the agent")
        try:
            buffers.send(frame)
            self._said.errors.clear()
            if not self._context.execute_async_v3(self._cuda.stream):
                raise self._said.refusal(
                    what="TensorRT cannot run the network", remedy="restart; if it happens again, " + _BUILD
                )
            buffers.fetch(names)
        finally:
            self._cuda.synchronise()
        return buffers.outputs(names)

    def refit(self, head: Mapping[str, NDArray[Any]]) -> None:
        """Exchange the head's weights; scores must be proven afterwards.

        Args:
            head: ONNX name -> weights, of the shapes they had.

        Raises:
            EngineError: TensorRT refuses; weights may be half exchanged, so the engine is closed.
        """
        try:
            self._cuda.synchronise()
            with self._said.explained(what="TensorRT cannot exchange the head", remedy=_BUILD):
                self._refit(head)
        except EngineError:
            self.close()
            raise

    def _refit(self, head: Mapping[str, NDArray[Any]]) -> None:
        arrays = {name: np.ascontiguousarray(weights, np.float32) for name, weights in head.items()}
        refitter: trt.Refitter = self._tensorrt.Refitter(self._engine, self._said.logger)
        try:
            for name, weights in arrays.items():
                if not refitter.set_named_weights(name, self._tensorrt.Weights(weights)):
                    raise self._said.refusal(
                        what=f"TensorRT takes no new weights for {name}, {weights.shape}", remedy=_BUILD
                    )
            missing: list[str] = refitter.get_missing_weights()
            if missing:
                raise EngineError(what=f"the new head lacks {', '.join(missing)}", remedy=_BUILD)
            if not refitter.refit_cuda_engine():
                raise self._said.refusal(what="TensorRT cannot exchange the head", remedy=_BUILD)
        finally:
            del refitter  # it holds the engine, and the error's traceback would hold it

    def serialised(self) -> bytes:
        """The engine as it is now, with exchanged weights."""
        self._cuda.synchronise()
        with self._said.explained(what="TensorRT cannot serialise the engine", remedy=_BUILD):
            return bytes(self._engine.serialize())

    def activation_bytes(self) -> int:
        """Memory of the GPU that one run needs beside weights and buffers."""
        return int(self._engine.device_memory_size_v2)

    def close(self) -> None:
        """Release buffers, then context, engine and runtime; a second time it does nothing."""
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

    def _let_go(self) -> None:
        """In the order in which they depend on each other: pybind11 destroys each with its last reference."""
        self._context = None
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


def blank_frame(program: Program) -> Image:
    """A black frame of the size it takes."""
    shape = next(tensor.shape for tensor in program.tensors if tensor.name == FRAME)
    blank: Image = np.zeros(shape[1:], np.uint8)
    return blank
