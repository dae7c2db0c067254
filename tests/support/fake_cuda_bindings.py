"""The part of NVIDIA's cuda-bindings that we use, on the fake GPU: each function returns its status and its results."""

from __future__ import annotations

import ctypes
import sys
from enum import IntEnum
from functools import wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from calibration.engine.cuda import DeviceMemory, PinnedMemory
    from tests.support.fake_gpu import FakeCuda

DEVICE, CONTEXT = 3, 5


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2


class CUdevice_attribute(IntEnum):  # noqa: N801 - NVIDIA's name
    CU_DEVICE_ATTRIBUTE_INTEGRATED = 18
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


def function(work: Callable[..., Any]) -> Callable[..., Any]:
    """One of the driver's: the status stands before its results, and an error is no exception."""
    name = work.__name__

    @wraps(work)
    def called(driver: Driver, *arguments: Any) -> tuple[Any, ...]:  # noqa: ANN401
        if name in driver.absent:
            message = f'Function "{name}" not found'
            raise RuntimeError(message)
        if name in driver.broken:
            return (driver.code,)
        result = work(driver, *arguments)
        results = () if result is None else result if isinstance(result, tuple) else (result,)
        return (CUresult.CUDA_SUCCESS, *results)

    return called


class Driver(ModuleType):
    """The module ``cuda.bindings.driver``.

    Attributes:
        broken: Names of functions that return an error.
        code: That error.
        absent: Names of functions that the driver's library does not have.
    """

    CU_MEMHOSTALLOC_DEVICEMAP = 2
    CUdevice_attribute = CUdevice_attribute

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__("cuda.bindings.driver")
        self.cuda = cuda
        self.broken: set[str] = set()
        self.code: int = CUresult.CUDA_ERROR_OUT_OF_MEMORY
        self.absent: set[str] = set()
        self.devices = 1
        self.contexts = 0
        self.retained = 0
        self._pinned: dict[int, PinnedMemory] = {}
        self._device: dict[int, DeviceMemory] = {}

    @function
    def cuInit(self, flags: int) -> None:  # noqa: N802
        assert flags == 0

    def cuGetErrorString(self, status: int) -> tuple[CUresult, bytes | None]:  # noqa: N802
        return (CUresult.CUDA_SUCCESS, b"out of memory" if status == CUresult.CUDA_ERROR_OUT_OF_MEMORY else None)

    @function
    def cuDeviceGetCount(self) -> int:  # noqa: N802
        return self.devices

    @function
    def cuDeviceGet(self, number: int) -> int:  # noqa: N802
        assert number == 0
        return DEVICE

    @function
    def cuDeviceGetName(self, size: int, device: int) -> bytes:  # noqa: N802
        assert device == DEVICE
        return (self.cuda.gpu.name.encode() + b"\0").ljust(size)  # filled up with spaces, as the package does

    @function
    def cuDeviceTotalMem(self, device: int) -> int:  # noqa: N802
        assert device == DEVICE
        return self.cuda.gpu.memory_bytes

    @function
    def cuDeviceGetAttribute(self, attribute: int, device: int) -> int:  # noqa: N802
        assert device == DEVICE
        major, minor = map(int, self.cuda.gpu.compute_capability.split("."))
        return {18: int(self.cuda.gpu.integrated), 75: major, 76: minor}[attribute]

    @function
    def cuDevicePrimaryCtxRetain(self, device: int) -> int:  # noqa: N802
        assert device == DEVICE
        self.retained += 1
        return CONTEXT

    @function
    def cuDevicePrimaryCtxRelease(self, device: int) -> None:  # noqa: N802
        assert device == DEVICE
        assert self.contexts == 0, "released while it is current"
        self.retained -= 1

    @function
    def cuCtxPushCurrent(self, context: int) -> None:  # noqa: N802
        assert context == CONTEXT
        self.contexts += 1
        self.cuda.entered = True

    @function
    def cuCtxPopCurrent(self) -> int:  # noqa: N802
        self.contexts -= 1
        if self.contexts == 0:
            self.cuda.__exit__(None, None, None)
        return CONTEXT

    @function
    def cuStreamCreate(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.cuda.stream

    @function
    def cuStreamDestroy(self, stream: int) -> None:  # noqa: N802
        assert stream == self.cuda.stream
        self.cuda.events.append("stream gone")

    @function
    def cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        assert stream == self.cuda.stream
        self.cuda.synchronise()

    @function
    def cuMemHostAlloc(self, size: int, flags: int) -> int:  # noqa: N802
        memory = self.cuda.pinned((size,), np.dtype(np.uint8), mapped=flags == self.CU_MEMHOSTALLOC_DEVICEMAP)
        self._pinned[memory.array.ctypes.data] = memory
        return memory.array.ctypes.data

    @function
    def cuMemHostGetDevicePointer(self, memory: int, flags: int) -> int:  # noqa: N802
        address = self._pinned[memory].address
        assert flags == 0
        assert address is not None, "CUDA refuses this without DEVICEMAP"
        return address

    @function
    def cuMemFreeHost(self, memory: int) -> None:  # noqa: N802
        self._pinned.pop(memory).release()

    @function
    def cuMemAlloc(self, size: int) -> int:  # noqa: N802
        memory = self.cuda.device(size)
        self._device[memory.address] = memory
        return memory.address

    @function
    def cuMemFree(self, address: int) -> None:  # noqa: N802
        self._device.pop(address).release()

    @function
    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        assert stream == self.cuda.stream
        self.cuda.waiting.append(lambda: self.cuda.write(target, _bytes_at(source, size)))

    @function
    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        assert stream == self.cuda.stream
        copied = np.dtype(np.uint8)
        self.cuda.waiting.append(lambda: np.copyto(_bytes_at(target, size), self.cuda.read(source, (size,), copied)))

    @function
    def cuMemGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return self.cuda.free_bytes(), self.cuda.gpu.memory_bytes


def _bytes_at(address: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(memoryview((ctypes.c_ubyte * size).from_address(address)), np.uint8)


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Driver:
    """Make ``from cuda.bindings import driver`` find this, and pycuda missing."""
    driver = Driver(cuda)
    parent, package = ModuleType("cuda"), ModuleType("cuda.bindings")
    package.__spec__ = ModuleSpec("cuda.bindings", None)
    package.driver = driver  # type: ignore[attr-defined]
    for module in (parent, package, driver):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    return driver
