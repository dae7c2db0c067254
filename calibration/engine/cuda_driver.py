"""Asks the CUDA driver which GPUs this device has.

It uses ctypes because no other library may be loaded first: TensorRT crashes the process if no driver answers.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
_INTEGRATED, _COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 18, 75, 76  # CUdevice_attribute
_INSTALL = "install the NVIDIA driver, and run as a user who may use the GPU (groups video and render)"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        compute_capability: For example ``8.7``.
        memory_bytes: Total memory; on an integrated GPU that of the whole machine.
        integrated: GPU and CPU share their memory, as on a Jetson.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    integrated: bool


@dataclass(frozen=True, slots=True)
class CudaDriver:
    """A working driver with at least one GPU.

    Attributes:
        version: The newest CUDA it supports, major and minor.
    """

    version: tuple[int, int]
    gpus: tuple[Gpu, ...]


def cuda_driver(load: Callable[[str], Any] = ctypes.CDLL) -> CudaDriver:
    """Query the driver without allocating GPU memory.

    Raises:
        EngineError: There is no driver, it does not work, or there is no GPU.
    """
    try:
        library = load(_LIBRARY)
    except OSError as error:
        reason = f"{_LIBRARY} not found" if "No such file" in str(error) else str(error)
        raise EngineError(what=f"no CUDA driver: {reason}", remedy=_INSTALL) from error
    driver = _Driver(library)
    driver.call("cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.call("cuDriverGetVersion", ctypes.byref(version))
    driver.call("cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise EngineError(what="the CUDA driver finds no GPU", remedy="check CUDA_VISIBLE_DEVICES and `dmesg`")
    gpus = tuple(_gpu(driver, number) for number in range(count.value))
    return CudaDriver((version.value // 1000, version.value % 1000 // 10), gpus)


class _Driver:
    """The driver's functions; error codes become exceptions."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - ctypes libraries have no type
        self._library = library

    def call(self, function: str, *arguments: object) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise EngineError(
                what=f"the CUDA driver does not work: {function}: {reason} ({code})",
                remedy="restart the device; if the error stays, reinstall the driver; `dmesg` has details",
            )


def _gpu(driver: _Driver, number: int) -> Gpu:
    name = ctypes.create_string_buffer(_NAME_BYTES)
    major, minor, integrated, memory_bytes = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    driver.call("cuDeviceGetName", name, _NAME_BYTES, number)
    driver.call("cuDeviceGetAttribute", ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, number)
    driver.call("cuDeviceGetAttribute", ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, number)
    driver.call("cuDeviceGetAttribute", ctypes.byref(integrated), _INTEGRATED, number)
    driver.call("cuDeviceTotalMem_v2", ctypes.byref(memory_bytes), number)
    capability = f"{major.value}.{minor.value}"
    return Gpu(name.value.decode(errors="replace"), capability, memory_bytes.value, bool(integrated.value))
