"""TensorRT for RTX: as TensorRT, but builds without a GPU, compiles when an engine is loaded, and replaces no head."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from tests.support import fake_tensorrt
from tests.support.fake_tensorrt import IBuilderConfig, ICudaEngine, IExecutionContext

if TYPE_CHECKING:
    import pytest

    from tests.support.fake_gpu import FakeCuda

ComputeCapability = enum.Enum("ComputeCapability", "SM80 SM86 SM89 SM120 SM121")


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, version: str = "1.7.1.116") -> fake_tensorrt._World:
    """Make ``import tensorrt_rtx`` find this."""
    changes = {"Builder": Builder, "Runtime": Runtime, "ComputeCapability": ComputeCapability}
    return fake_tensorrt.install(monkeypatch, cuda, version, "tensorrt_rtx", changes)


class _Config(IBuilderConfig):
    def __init__(self) -> None:
        super().__init__()
        self._capabilities: list[ComputeCapability | None] = []

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._capabilities)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, count: int) -> None:
        self._capabilities = [None] * count

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        self._capabilities[index] = compute_capability
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> fake_tensorrt.ITimingCache:
        message = f"{len(serialized_timing_cache)} bytes of timings: this asks for a GPU"
        raise AssertionError(message)


class Builder(fake_tensorrt.Builder):
    _needs_gpu = False

    def create_builder_config(self) -> IBuilderConfig:
        return _Config()


class Runtime(fake_tensorrt.Runtime):
    def _engine(self, plan: bytes) -> ICudaEngine:
        return _Engine(plan)


class _Engine(ICudaEngine):
    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig()

    def create_execution_context(self, runtime_config: _RuntimeConfig | None = None) -> IExecutionContext | None:
        assert runtime_config is not None
        runtime_config.compile()
        return super().create_execution_context()


class _RuntimeCache:
    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, blob: bytes) -> bool:
        if blob != b"kernels for " + fake_tensorrt._world.cuda.gpu.name.encode():
            return False
        self.kernels = blob
        return True

    def serialize(self) -> bytes:
        return self.kernels


class _RuntimeConfig:
    def __init__(self) -> None:
        self._cache: _RuntimeCache | None = None

    def create_runtime_cache(self) -> _RuntimeCache:
        return _RuntimeCache()

    def set_runtime_cache(self, cache: _RuntimeCache) -> bool:
        self._cache = cache
        return True

    def compile(self) -> None:
        """Done by the library when a context is made."""
        assert self._cache is not None
        if not self._cache.kernels:
            fake_tensorrt._world.compiled += 1
            self._cache.kernels = b"kernels for " + fake_tensorrt._world.cuda.gpu.name.encode()
