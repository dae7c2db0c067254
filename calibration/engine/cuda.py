"""The few CUDA functions that an engine needs.

Other modules see only the protocol `Cuda`, so that they can be tested without a GPU. It is implemented with pycuda and
with NVIDIA's `cuda-bindings`; `cuda_choice` takes whichever is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.engine.cuda_driver import Gpu


@dataclass(frozen=True, slots=True)
class PinnedMemory:
    """Page-locked memory of the CPU, which asynchronous copies need.

    Attributes:
        array: The CPU's view.
        address: The GPU's view; None if the memory is not mapped.
        release: Frees it; ``array`` must not be used afterwards.
    """

    array: NDArray[Any]
    address: int | None
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of the GPU; ``release`` frees it."""

    address: int
    release: Callable[[], None]


class Cuda(Protocol):
    """One GPU with one stream, used by the thread that entered it. Release all memory before leaving."""

    gpu: Gpu
    stream: int

    def __enter__(self) -> Self:
        """Open the GPU and make its primary context current in this thread.

        Raises:
            EngineError: Package, driver or GPU is missing.
        """

    def __exit__(self, *_: object) -> None:
        """Release stream and context."""

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, mapped: bool) -> PinnedMemory:
        """Allocate memory of the CPU. If mapped, the GPU reads and writes it in place."""

    def device(self, size_bytes: int) -> DeviceMemory:
        """Allocate memory of the GPU."""

    def upload(self, target: DeviceMemory, source: PinnedMemory) -> None:
        """Start to copy to the GPU; ``source`` may be changed after ``synchronise``."""

    def download(self, target: PinnedMemory, source: DeviceMemory) -> None:
        """Start to copy from the GPU; ``target`` is valid after ``synchronise``."""

    def synchronise(self) -> None:
        """Wait until all work is finished.

        Raises:
            EngineError: Some of it failed.
        """

    def free_bytes(self) -> int:
        """Free memory of the GPU."""


def cuda_failure(failed: str, reason: str) -> EngineError:
    """The error for a function of the driver that failed."""
    return EngineError(
        what=f"{failed}: {reason}",
        remedy="free memory if it ran out; otherwise restart and check the driver: dmesg | grep -i nv",
    )


def no_gpu(*, reason: str) -> EngineError:
    """The error for a machine whose driver or GPU is missing."""
    return EngineError(
        what=f"no NVIDIA GPU can be used: {reason}",
        remedy="check the driver with nvidia-smi (Jetson: tegrastats); without a GPU use onnxruntime",
    )
