"""The part of TensorRT that we use, on ONNX Runtime; a test holds its names against NVIDIA's own bindings.

It is strict where TensorRT crashes or keeps silent: work goes through the fake GPU and waits there, objects must go in
order, weights are exchanged only where they were marked.
"""

from __future__ import annotations

import enum
import json
import sys
import weakref
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from tests.support.fake_gpu import FakeCuda

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest


@dataclass
class _World:
    """One process with TensorRT in it, and what shall go wrong there.

    Attributes:
        builds: Configurations of the builds so far.
        compiled: How often TensorRT for RTX has compiled an engine's kernels.
        roundings: Factors that spoil the outputs of the next engines, one for each that is loaded or exchanged.
    """

    cuda: FakeCuda
    builds: list[IBuilderConfig] = field(default_factory=list)
    refits: int = 0
    compiled: int = 0
    enqueue: Callable[[], bool] = lambda: True
    refuse: set[str] = field(default_factory=set)
    roundings: list[float] = field(default_factory=list)

    def gone(self, thing: object, name: str) -> None:
        weakref.finalize(thing, self.cuda.events.append, f"{name} gone")


_world = _World(FakeCuda())


def install(
    monkeypatch: pytest.MonkeyPatch,
    cuda: FakeCuda,
    version: str = "10.3.0",
    name: str = "tensorrt",
    changes: Mapping[str, object] = MappingProxyType({}),
) -> _World:
    """Make ``import tensorrt`` find this, with changes."""
    module = ModuleType(name)
    module.__dict__.update({name: value for name, value in globals().items() if name[0] != "_"})
    module.__dict__.update(changes)
    module.__dict__["__version__"] = version
    module.__spec__ = ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)
    _world.__dict__.update(_World(cuda).__dict__)
    return _world


BuilderFlag = enum.Enum("BuilderFlag", "TF32 REFIT_INDIVIDUAL")
MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE TACTIC_DRAM")
SerializationFlag = enum.Enum("SerializationFlag", "INCLUDE_REFIT")  # since 10.14
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
_TYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.UINT8: np.uint8,
    TensorProto.FLOAT16: np.float16,
}


def nptype(trt_type: int) -> type[np.generic]:
    return _TYPES[trt_type]


class ILogger:
    Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content + b"timed "


class IBuilderConfig:
    def __init__(self) -> None:
        self.progress_monitor: IProgressMonitor | None = None
        self.builder_optimization_level = 3
        self._flags = {BuilderFlag.TF32}
        self._pools: dict[MemoryPoolType, int] = {}
        self._timings: ITimingCache | None = None
        self._marked: tuple[str, ...] = ()

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.remove(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert isinstance(pool_size, int)
        self._pools[pool] = pool_size

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        assert isinstance(serialized_timing_cache, bytes)
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:  # noqa: FBT001 - as TensorRT has it
        assert not ignore_mismatch
        if "timings" in _world.refuse and cache._content:
            return False
        self._timings = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        assert self._timings is not None
        return self._timings


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        self._onnx: bytes | None = None
        self._parser: Callable[[], OnnxParser | None] = lambda: None
        self._marked: list[str] = []

    def mark_weights_refittable(self, name: str) -> bool:
        if "mark" in _world.refuse:
            return False
        self._marked.append(name)
        return True


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self._network = network

    def parse(self, model: bytes) -> bool:
        self._network._onnx = model
        self._network._parser = weakref.ref(self)
        return True


class Builder:
    _needs_gpu = True

    def __init__(self, logger: ILogger) -> None:
        assert _world.cuda.entered or not self._needs_gpu, "no GPU: TensorRT crashes here"
        assert isinstance(logger, ILogger)

    def create_network(self, flags: int) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        assert network._parser() is not None, "the parser owns the weights"
        _world.builds.append(config)
        config._marked = tuple(network._marked)
        assert config.progress_monitor is not None
        config.progress_monitor.phase_start("Building", None, 1)
        if not config.progress_monitor.step_complete("Building", 0):
            return None
        config.progress_monitor.phase_finish("Building")
        refittable = network._marked if BuilderFlag.REFIT_INDIVIDUAL in config._flags else []
        return json.dumps(refittable).encode() + b"\n" + (network._onnx or b"")


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        assert _world.cuda.entered, "no GPU: TensorRT crashes here"
        self._logger = logger
        _world.gone(self, "runtime")

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if "plan" in _world.refuse:
            self._logger.log(ILogger.ERROR, "Version tag does not match")
            return None
        return self._engine(bytes(serialized_engine))

    def _engine(self, plan: bytes) -> ICudaEngine:
        return ICudaEngine(plan)


class ICudaEngine:
    def __init__(self, plan: bytes) -> None:
        marked, _, content = plan.partition(b"\n")
        self._refittable = json.loads(marked)
        self._load(onnx.load_from_string(content))
        _world.gone(self, "engine")

    def _load(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._rounding = _world.roundings.pop(0) if _world.roundings else 1.0
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model.SerializeToString(), options)
        self._tensors = {value.name: value.type.tensor_type for value in (*model.graph.input, *model.graph.output)}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(dimension.dim_value or -1 for dimension in self._tensors[name].shape.dim)

    def get_tensor_dtype(self, name: str) -> int:
        return self._tensors[name].elem_type

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        inputs = [value.name for value in self._model.graph.input]
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def create_execution_context(self) -> IExecutionContext | None:
        return None if "context" in _world.refuse else IExecutionContext(self)

    def create_serialization_config(self) -> ISerializationConfig:
        return ISerializationConfig()

    def serialize_with_config(self, arg0: ISerializationConfig) -> bytes:
        refittable = self._refittable if arg0._flags else []  # without INCLUDE_REFIT never again
        return json.dumps(refittable).encode() + b"\n" + self._model.SerializeToString()


class ISerializationConfig:
    def __init__(self) -> None:
        self._flags: set[SerializationFlag] = set()

    def set_flag(self, flag: SerializationFlag) -> None:
        self._flags.add(flag)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        _world.gone(self, "context")

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if f"address of {name}" in _world.refuse:
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == _world.cuda.stream
        assert set(self._addresses) == set(self._engine._tensors), "every tensor needs an address"
        _world.cuda.waiting.append(self._execute)
        return _world.enqueue()

    def _execute(self) -> None:
        engine = self._engine
        frame = _world.cuda.read(self._addresses["frame"], engine.get_tensor_shape("frame"), np.dtype(np.uint8))
        names = [name for name in engine._tensors if name != "frame"]
        for name, output in zip(names, engine._session.run(names, {"frame": frame}), strict=True):
            _world.cuda.write(self._addresses[name], output * np.float32(engine._rounding))


class Weights:
    def __init__(self, a: np.ndarray[Any, Any]) -> None:
        assert a.flags.c_contiguous
        assert a.dtype == np.float32
        self._array = weakref.ref(a)


class Refitter:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        assert not _world.cuda.waiting, "exchanged while in flight"
        self._engine = engine
        self._weights: dict[str, Weights] = {}

    def set_named_weights(self, name: str, weights: Weights) -> bool:
        array = weights._array()
        old = {tensor.name: tensor for tensor in self._engine._model.graph.initializer}
        if array is None or name not in self._engine._refittable or array.size != np.prod(old[name].dims):
            return False
        self._weights[name] = weights
        return True

    def get_missing_weights(self) -> list[str]:
        return ["head.forgotten"] if "missing" in _world.refuse else []

    def refit_cuda_engine(self) -> bool:
        if "refit" in _world.refuse:
            return False
        _world.refits += 1
        model = onnx.ModelProto()
        model.CopyFrom(self._engine._model)
        for tensor in model.graph.initializer:
            if tensor.name in self._weights:
                array = self._weights[tensor.name]._array()
                assert array is not None, "arrays must live until the exchange is done"
                tensor.CopyFrom(numpy_helper.from_array(array.reshape(tensor.dims), tensor.name))
        self._engine._load(model)
        return True
