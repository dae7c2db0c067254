"""A GPU that forgets nothing: work waits until it is waited for, and memory that is still in use is not given back."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.engine.cuda import DeviceMemory, PinnedMemory
from calibration.engine.cuda_driver import Gpu
from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

ORIN = Gpu("Orin", "8.7", 8 << 30, integrated=True)
DESKTOP = Gpu("NVIDIA RTX 4000", "8.9", 20 << 30, integrated=False)


class FakeCuda:
    """Implements ``calibration.engine.cuda.Cuda``.

    Attributes:
        events: What happened, in order.
        living: Names of memory not yet released.
        mapped: Addresses of memory of the CPU that the GPU reaches.
        waiting: Work that was begun and not waited for.
    """

    def __init__(self, gpu: Gpu = DESKTOP) -> None:
        self.gpu = gpu
        self.stream = 7
        self.events: list[str] = []
        self.living: dict[int, str] = {}
        self.waiting: list[Callable[[], None]] = []
        self.entered = False
        self.downloads = 0
        self.clock_s = 0.0
        self.mapped_s, self.copied_s = 0.001, 0.002
        self.fails_after: int | None = None
        self.synchronise_error: EngineError | None = None
        self._memory: dict[int, np.ndarray[Any, Any]] = {}
        self._numbers = count(0x1000, 0x100)
        self.mapped: set[int] = set()

    def __enter__(self) -> Self:
        self.entered = True
        self.events.append("entered")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert not self.waiting, "left with work in flight"
        assert not self.living, f"left with {self.living} not released"
        self.entered = False
        self.events.append("left")

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, mapped: bool) -> PinnedMemory:
        array = np.empty(shape, dtype)
        number = self._allocated("pinned", array)
        if mapped:
            self.mapped.add(number)
        return PinnedMemory(array, number if mapped else None, lambda: self._released(number))

    def device(self, size_bytes: int) -> DeviceMemory:
        number = self._allocated("device", np.empty(size_bytes, np.uint8))
        return DeviceMemory(number, lambda: self._released(number))

    def upload(self, target: DeviceMemory, source: PinnedMemory) -> None:
        self.waiting.append(lambda: self.write(target.address, source.array))

    def download(self, target: PinnedMemory, source: DeviceMemory) -> None:
        self.downloads += 1
        self.waiting.append(
            lambda: np.copyto(target.array, self.read(source.address, target.array.shape, target.array.dtype))
        )

    def synchronise(self) -> None:
        assert self.entered
        self.clock_s += self.mapped_s if self.mapped else self.copied_s
        if self.synchronise_error is not None:
            self.waiting.clear()
            raise self.synchronise_error
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()

    def free_bytes(self) -> int:
        return self.gpu.memory_bytes - sum(memory.nbytes for memory in list(self._memory.values()))

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Store as the GPU does."""
        memory = self._memory[address].reshape(-1).view(np.uint8)
        assert memory.nbytes == array.nbytes, "a buffer of another size"
        memory[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def read(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Load as the GPU does."""
        return np.array(self._memory[address].reshape(-1).view(np.uint8).view(dtype).reshape(shape))

    def _allocated(self, kind: str, array: np.ndarray[Any, Any]) -> int:
        assert self.entered
        if self.fails_after is not None and len(self.living) >= self.fails_after:
            raise EngineError(what="cannot allocate: out of memory", remedy="free memory")
        number = next(self._numbers)
        self._memory[number] = array
        self.living[number] = kind
        return number

    def _released(self, number: int) -> None:
        assert not self.waiting, "released while in flight"
        self._memory.pop(number).reshape(-1).view(np.uint8)[:] = 0xAB  # whoever looks at it still will see
        self.mapped.discard(number)
        self.events.append(f"released {self.living.pop(number)}")
