"""The part of pycuda's driver that we use, on the fake GPU; written after pycuda's own wrapper (wrap_cudadrv.cpp)."""

from __future__ import annotations

import sys
import weakref
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from calibration.engine.cuda import DeviceMemory, PinnedMemory
    from tests.support.fake_gpu import FakeCuda


class Error(Exception):
    """As pycuda's own; all that it raises derives from it."""


class _Allocation:
    """Page-locked memory: the ``base`` of the array over it."""

    def __init__(self, memory: PinnedMemory, mapped: bool) -> None:  # noqa: FBT001
        self._memory = memory
        self._mapped = mapped
        self.__array_interface__ = memory.array.__array_interface__

    def get_device_pointer(self) -> int:
        assert self._mapped, "CUDA refuses this without DEVICEMAP"
        assert self._memory.address is not None
        return self._memory.address

    def free(self) -> None:
        self._memory.release()


class _DeviceAllocation:
    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory

    def __int__(self) -> int:
        return self._memory.address

    def free(self) -> None:
        self._memory.release()


class _Stream:
    def __init__(self, handle: int, synchronise: Callable[[], None]) -> None:
        self.handle = handle
        self.synchronize = synchronise


class Driver(ModuleType):
    """The module ``pycuda.driver``.

    Attributes:
        broken: Names of functions that raise.
    """

    Error = Error
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    device_attribute = SimpleNamespace(INTEGRATED=18)

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__("pycuda.driver")
        self.cuda = cuda
        self.broken: set[str] = set()
        self.devices = 1
        self.contexts = 0

    def _works(self, name: str) -> None:
        if name in self.broken:
            message = f"{name} failed: no such luck\nand a second line"
            raise Error(message)

    def init(self) -> None:
        self._works("init")

    def Device(self, number: int) -> Any:  # noqa: ANN401, N802 - a class there
        assert number == 0
        return SimpleNamespace(
            name=lambda: self.cuda.gpu.name,
            compute_capability=lambda: tuple(int(part) for part in self.cuda.gpu.compute_capability.split(".")),
            total_memory=lambda: self.cuda.gpu.memory_bytes,
            get_attribute=lambda _attribute: int(self.cuda.gpu.integrated),
            retain_primary_context=lambda: SimpleNamespace(push=self._push, pop=self._pop),
        )

    Device.count = lambda: sys.modules["pycuda.driver"].devices  # type: ignore[attr-defined]

    def _push(self) -> None:
        self._works("push")
        self.contexts += 1
        self.cuda.entered = True

    def _pop(self) -> None:
        self.contexts -= 1
        if self.contexts == 0:
            self.cuda.__exit__(None, None, None)

    def Stream(self) -> Any:  # noqa: ANN401, N802 - a class there
        self._works("Stream")
        stream = _Stream(self.cuda.stream, self._synchronise)
        weakref.finalize(stream, self.cuda.events.append, "stream gone")
        return stream

    def _synchronise(self) -> None:
        self._works("synchronize")
        self.cuda.synchronise()

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:  # noqa: ANN401
        self._works("pagelocked_empty")
        assert order == "C"
        mapped = mem_flags == self.host_alloc_flags.DEVICEMAP
        array = np.asarray(_Allocation(self.cuda.pinned(shape, dtype, mapped=mapped), mapped))
        assert isinstance(array.base, _Allocation)
        return array

    def mem_alloc(self, size: int) -> _DeviceAllocation:
        self._works("mem_alloc")
        return _DeviceAllocation(self.cuda.device(size))

    def memcpy_htod_async(self, dest: int, src: Any, stream: Any) -> None:  # noqa: ANN401
        self._works("memcpy_htod_async")
        assert stream.handle == self.cuda.stream
        self.cuda.waiting.append(lambda: self.cuda.write(dest, src))

    def memcpy_dtoh_async(self, dest: Any, src: int, stream: Any) -> None:  # noqa: ANN401
        self._works("memcpy_dtoh_async")
        assert stream.handle == self.cuda.stream
        self.cuda.waiting.append(lambda: np.copyto(dest, self.cuda.read(src, dest.shape, dest.dtype)))

    def mem_get_info(self) -> tuple[int, int]:
        self._works("mem_get_info")
        return self.cuda.free_bytes(), self.cuda.gpu.memory_bytes


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Driver:
    """Make ``import pycuda.driver`` find this."""
    driver = Driver(cuda)
    package = ModuleType("pycuda")
    package.__spec__ = ModuleSpec("pycuda", None)
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver
