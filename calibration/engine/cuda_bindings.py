"""CUDA by NVIDIA's own `cuda-bindings` (12.8 or newer), which come as wheels. Imported when a GPU is opened."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.engine.cuda import DeviceMemory, PinnedMemory, cuda_failure, no_gpu
from calibration.engine.cuda_driver import Gpu
from calibration.errors import EngineError, install_extra

if TYPE_CHECKING:
    from typing_extensions import Self

_NAME_BYTES = 256


class CudaBindings:
    """The first GPU of this machine, used through cuda-bindings."""

    gpu: Gpu
    stream: int

    def __enter__(self) -> Self:
        """Open the GPU and make its primary context, which TensorRT uses, current in this thread."""
        self._driver = _driver()
        failed = "cannot open the GPU"
        try:
            (status,) = self._driver.cuInit(0)
        except (RuntimeError, ValueError) as error:  # no driver's library, which the first call loads; an unknown code
            raise no_gpu(reason=" ".join(str(error).split())) from error
        self._check(failed, "cuInit", status)
        if self._call(failed, "cuDeviceGetCount") == 0:
            raise no_gpu(reason="the driver finds none")
        with ExitStack() as resources:
            device = self._call(failed, "cuDeviceGet", 0)
            self.gpu = self._described(device, failed)
            context = self._call(failed, "cuDevicePrimaryCtxRetain", device)
            resources.callback(self._release, "cuDevicePrimaryCtxRelease", device)
            self._call(failed, "cuCtxPushCurrent", context)
            resources.callback(self._release, "cuCtxPopCurrent")
            self._stream = self._call(failed, "cuStreamCreate", 0)
            self.stream = int(self._stream)
            resources.callback(self._release, "cuStreamDestroy", self._stream)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release stream and context."""
        self._resources.close()

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, mapped: bool) -> PinnedMemory:
        """Allocate memory of the CPU."""
        size_bytes = prod(shape) * dtype.itemsize
        failed = f"cannot pin {size_bytes / 2**20:.1f} MiB of memory"
        flags = self._driver.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0
        with ExitStack() as resources:
            memory = int(self._call(failed, "cuMemHostAlloc", size_bytes, flags))
            resources.callback(self._release, "cuMemFreeHost", memory)
            address = int(self._call(failed, "cuMemHostGetDevicePointer", memory, 0)) if mapped else None
            view = memoryview((ctypes.c_ubyte * size_bytes).from_address(memory))
            return PinnedMemory(np.frombuffer(view, dtype).reshape(shape), address, resources.pop_all().close)

    def device(self, size_bytes: int) -> DeviceMemory:
        """Allocate memory of the GPU."""
        memory = self._call(f"cannot allocate {size_bytes / 2**20:.1f} MiB of GPU memory", "cuMemAlloc", size_bytes)
        return DeviceMemory(int(memory), lambda: self._release("cuMemFree", memory))

    def upload(self, target: DeviceMemory, source: PinnedMemory) -> None:
        """Start to copy to the GPU."""
        array = source.array
        copied = (target.address, array.ctypes.data, array.nbytes, self._stream)
        self._call("cannot copy to the GPU", "cuMemcpyHtoDAsync", *copied)

    def download(self, target: PinnedMemory, source: DeviceMemory) -> None:
        """Start to copy from the GPU."""
        array = target.array
        copied = (array.ctypes.data, source.address, array.nbytes, self._stream)
        self._call("cannot copy from the GPU", "cuMemcpyDtoHAsync", *copied)

    def synchronise(self) -> None:
        """Wait until all work is finished."""
        self._call("the GPU failed", "cuStreamSynchronize", self._stream)

    def free_bytes(self) -> int:
        """Free memory of the GPU."""
        free, _ = self._call("cannot read the GPU's free memory", "cuMemGetInfo")
        return int(free)

    def _described(self, device: object, failed: str) -> Gpu:
        names = self._driver.CUdevice_attribute
        integrated, major, minor = (
            int(self._call(failed, "cuDeviceGetAttribute", attribute, device))
            for attribute in (
                names.CU_DEVICE_ATTRIBUTE_INTEGRATED,
                names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name, *_ = self._call(failed, "cuDeviceGetName", _NAME_BYTES, device).split(b"\0", 1)  # the rest is filled up
        memory_bytes = int(self._call(failed, "cuDeviceTotalMem", device))
        return Gpu(name.decode(errors="replace"), f"{major}.{minor}", memory_bytes, bool(integrated))

    def _release(self, function: str, *arguments: object) -> None:
        self._call("cannot release the GPU", function, *arguments)

    def _call(self, failed: str, function: str, *arguments: object) -> Any:  # noqa: ANN401 - they have no types
        """Call a function of the driver.

        Returns:
            Its result; several in a tuple.

        Raises:
            EngineError: It returned an error code, or the driver, being older, does not have it.
        """
        try:
            status, *results = getattr(self._driver, function)(*arguments)
        except RuntimeError as error:
            raise EngineError(
                what=f"{failed}: {function}: {error}",
                remedy="the driver may be older than cuda-bindings: update it, or pip install 'cuda-bindings<13'",
            ) from error
        except ValueError as error:  # an error code that the package, older than the driver, does not know
            raise cuda_failure(failed, f"{function}: {error}") from error
        self._check(failed, function, status)
        return results[0] if len(results) == 1 else results

    def _check(self, failed: str, function: str, status: int) -> None:
        if status:
            _, text = self._driver.cuGetErrorString(status)
            raise cuda_failure(failed, f"{function}: {(text or b'unknown error').decode()} ({int(status)})")


def _driver() -> Any:  # noqa: ANN401 - cuda-bindings have no types
    try:
        from cuda.bindings import driver  # noqa: PLC0415 - absent on most machines
    except (ImportError, OSError) as error:
        raise EngineError(
            what=f"cuda-bindings cannot be loaded: {error}",
            remedy=f"{install_extra('cuda-bindings')} (12.8 or newer); without an NVIDIA GPU use onnxruntime",
        ) from error
    return driver
