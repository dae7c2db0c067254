"""CUDA by pycuda, which is compiled where it is installed. Imported when a GPU is opened: few machines have it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from calibration.engine.cuda import DeviceMemory, PinnedMemory, cuda_failure, no_gpu
from calibration.engine.cuda_driver import Gpu
from calibration.errors import EngineError, install_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from typing_extensions import Self


class PyCuda:
    """The first GPU of this machine, used through pycuda."""

    gpu: Gpu
    stream: int

    def __enter__(self) -> Self:
        """Open the GPU and make its primary context, which TensorRT uses, current in this thread."""
        self._driver = _driver()
        with self._translated("cannot open the GPU"), ExitStack() as resources:
            self._driver.init()
            if self._driver.Device.count() == 0:
                raise no_gpu(reason="the driver finds none")
            device = self._driver.Device(0)
            integrated = bool(device.get_attribute(self._driver.device_attribute.INTEGRATED))
            major, minor = device.compute_capability()
            self.gpu = Gpu(device.name(), f"{major}.{minor}", device.total_memory(), integrated)
            self._context = device.retain_primary_context()
            self._context.push()
            resources.callback(self._drop_context)
            self._stream = self._driver.Stream()
            self.stream = int(self._stream.handle)
            resources.callback(self._drop_stream)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release stream and context."""
        with self._translated("cannot release the GPU"):
            self._resources.close()

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, mapped: bool) -> PinnedMemory:
        """Allocate memory of the CPU."""
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._translated(f"cannot pin {prod(shape) * dtype.itemsize / 2**20:.1f} MiB of memory"):
            array = self._driver.pagelocked_empty(shape, dtype, mem_flags=flags)
            allocation = array.base
            address = int(allocation.get_device_pointer()) if mapped else None
        return PinnedMemory(array, address, allocation.free)

    def device(self, size_bytes: int) -> DeviceMemory:
        """Allocate memory of the GPU."""
        with self._translated(f"cannot allocate {size_bytes / 2**20:.1f} MiB of GPU memory"):
            allocation = self._driver.mem_alloc(size_bytes)
        return DeviceMemory(int(allocation), allocation.free)

    def upload(self, target: DeviceMemory, source: PinnedMemory) -> None:
        """Start to copy to the GPU."""
        with self._translated("cannot copy to the GPU"):
            self._driver.memcpy_htod_async(target.address, source.array, self._stream)

    def download(self, target: PinnedMemory, source: DeviceMemory) -> None:
        """Start to copy from the GPU."""
        with self._translated("cannot copy from the GPU"):
            self._driver.memcpy_dtoh_async(target.array, source.address, self._stream)

    def synchronise(self) -> None:
        """Wait until all work is finished."""
        with self._translated("the GPU failed"):
            self._stream.synchronize()

    def free_bytes(self) -> int:
        """Free memory of the GPU."""
        with self._translated("cannot read the GPU's free memory"):
            return int(self._driver.mem_get_info()[0])

    def _drop_context(self) -> None:
        self._context.pop()
        self._context = None

    def _drop_stream(self) -> None:
        self._stream = None  # pycuda destroys it with its last reference

    @contextmanager
    def _translated(self, failed: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise cuda_failure(failed, _first_line(error)) from error


def _driver() -> Any:  # noqa: ANN401 - pycuda has no types
    try:
        import pycuda.driver  # noqa: PLC0415 - absent on most machines, and needs the driver's library
    except ModuleNotFoundError as error:
        raise EngineError(
            what=f"pycuda is not installed: {error}",
            remedy=f"on a device with an NVIDIA GPU: {install_extra('tensorrt')}; otherwise use onnxruntime",
        ) from error
    except (ImportError, OSError) as error:
        raise no_gpu(reason=_first_line(error)) from error
    return pycuda.driver


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
