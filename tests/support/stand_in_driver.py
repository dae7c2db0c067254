"""NVIDIA's real cuda-bindings on a driver that stands in: a libcuda.so.1 whose functions are those of the fake GPU.

Run as a program: ``stand_in_driver.py BUNDLE FOLDER [BINDINGS]``. It runs the bundle's engine through the cuda-bindings
in the folder BINDINGS, else through those installed, and prints their version.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
import sys
from ctypes import POINTER, c_char, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibration.bundle.bundle import check_golden, open_bundle
from calibration.deployment.engine_source import source_of
from calibration.engine.cuda_bindings import CudaBindings
from calibration.engine.tensorrt import TensorRTEngine
from calibration.errors import EngineError
from tests.support import fake_tensorrt
from tests.support.fake_cuda_bindings import Driver
from tests.support.fake_gpu import ORIN, FakeCuda
from tests.support.stub_library import stub_library

if TYPE_CHECKING:
    from collections.abc import Sequence

# As in NVIDIA's cuda.h: what a function writes, whose pointers come first, and its arguments after them.
SIGNATURES: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
    "cuInit": ([], [c_uint]),
    "cuDeviceGetCount": ([c_int], []),
    "cuDeviceGet": ([c_int], [c_int]),
    "cuDeviceTotalMem": ([c_size_t], [c_int]),
    "cuDeviceGetAttribute": ([c_int], [c_int, c_int]),
    "cuDevicePrimaryCtxRetain": ([c_void_p], [c_int]),
    "cuDevicePrimaryCtxRelease": ([], [c_int]),
    "cuCtxPushCurrent": ([], [c_void_p]),
    "cuCtxPopCurrent": ([c_void_p], []),
    "cuStreamCreate": ([c_void_p], [c_uint]),
    "cuStreamDestroy": ([], [c_void_p]),
    "cuStreamSynchronize": ([], [c_void_p]),
    "cuMemHostAlloc": ([c_void_p], [c_size_t, c_uint]),
    "cuMemHostGetDevicePointer": ([c_uint64], [c_void_p, c_uint]),
    "cuMemFreeHost": ([], [c_void_p]),
    "cuMemAlloc": ([c_uint64], [c_size_t]),
    "cuMemFree": ([], [c_uint64]),
    "cuMemcpyHtoDAsync": ([], [c_uint64, c_void_p, c_size_t, c_void_p]),
    "cuMemcpyDtoHAsync": ([], [c_void_p, c_uint64, c_size_t, c_void_p]),
    "cuMemGetInfo": ([c_size_t, c_size_t], []),
    "cuGetErrorString": ([], [c_int, POINTER(c_char_p)]),
    "cuDeviceGetName": ([], [POINTER(c_char), c_int, c_int]),
}
NOT_FOUND = 500
LOOK_UP = ctypes.CFUNCTYPE(c_int, c_char_p, POINTER(c_void_p), c_int, c_uint64, c_void_p)


class StandIn:
    """The functions of the library. They must not be called when this object is gone."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._functions = {name: self._in_c(name) for name in SIGNATURES}
        self._look_up = LOOK_UP(self._found)
        self._functions["cuGetProcAddress"] = self._look_up  # 12.8 looks up this, too

    def load(self, folder: Path) -> None:
        """Into this process, for good: who looks for the driver now finds this one."""
        address = ctypes.cast(self._look_up, c_void_p).value
        library = folder / "libcuda.so.1"
        library.write_bytes(stub_library(library.name, ["cuGetProcAddress_v2"], platform.machine(), address))
        ctypes.CDLL(str(library))

    def _found(self, name: bytes, function: Any, _version: int, _flags: int, _status: object) -> int:  # noqa: ANN401
        found = self._functions.get(name.decode())
        function[0] = ctypes.cast(found, c_void_p) if found is not None else None
        return 0 if found is not None else NOT_FOUND

    def _in_c(self, name: str) -> Any:  # noqa: ANN401
        written, arguments = SIGNATURES[name]
        special: dict[str, Any] = {"cuGetErrorString": self._error_string, "cuDeviceGetName": self._device_name}

        def called(*given: Any) -> int:  # noqa: ANN401
            targets, values = given[: len(written)], given[len(written) :]
            status, *results = getattr(self._driver, name)(*values)
            for target, result in zip(targets, results, strict=not status):
                target[0] = result
            return int(status)

        return ctypes.CFUNCTYPE(c_int, *map(POINTER, written), *arguments)(special.get(name, called))

    def _error_string(self, status: int, text: Any) -> int:  # noqa: ANN401
        text[0] = self._driver.cuGetErrorString(status)[1]
        return 0

    def _device_name(self, text: Any, size: int, device: int) -> int:  # noqa: ANN401
        status, name = self._driver.cuDeviceGetName(size, device)
        ctypes.memmove(text, name, size)
        return int(status)


def main() -> None:
    """Run one engine, meet errors, and print the version of the bindings."""
    bundle, folder = open_bundle(Path(sys.argv[1])), Path(sys.argv[2])
    sys.path[:0] = sys.argv[3:]
    cuda = FakeCuda(ORIN)
    driver = Driver(cuda)
    stand_in = StandIn(driver)
    stand_in.load(folder)
    with pytest.MonkeyPatch.context() as patch:
        fake_tensorrt.install(patch, cuda)
        with TensorRTEngine(source_of(bundle), folder / "engine", cuda=CudaBindings) as engine:
            check_golden(bundle, engine)
    assert cuda.events[-2:] == ["stream gone", "left"], cuda.events
    with CudaBindings() as opened:
        assert opened.gpu == ORIN
        assert opened.stream == cuda.stream
        assert opened.free_bytes() == ORIN.memory_bytes
        mapped = opened.pinned((2, 3), np.dtype(np.float32), mapped=True)
        assert mapped.address in cuda.mapped
        mapped.release()
        driver.broken = {"cuMemAlloc"}
        with pytest.raises(EngineError, match=r"cuMemAlloc: out of memory \(2\)"):
            opened.device(8)
        driver.code = 99999  # of a driver newer than the package
        with pytest.raises(EngineError, match="cuMemAlloc: 99999 is not a valid CUresult"):
            opened.device(8)
    driver.broken = {"cuInit"}
    with pytest.raises(EngineError, match="no NVIDIA GPU can be used: 99999 is not a valid CUresult"):
        CudaBindings().__enter__()
    assert (driver.contexts, driver.retained, cuda.living) == (0, 0, {})
    bindings = importlib.import_module("cuda.bindings")
    sys.stdout.write(f"{bindings.__version__}\n")


if __name__ == "__main__":
    main()
