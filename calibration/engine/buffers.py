"""Buffers that a network on the GPU reads its frame from and writes its outputs to."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.engine.cuda import Cuda, DeviceMemory, PinnedMemory
    from calibration.imaging.preprocess import Image

FRAME = "frame"
READ = ("score", "map")
"""Outputs that an engine returns."""
_OUTPUT_RANKS = {"score": 1, "map": 3, "features": 4}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the network: shape with the batch of one, and NumPy's type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool

    @property
    def size_bytes(self) -> int:
        """Size of all its elements."""
        return prod(self.shape) * self.dtype.itemsize


def check_tensors(tensors: Sequence[Tensor]) -> None:
    """Accept a fused network only: a frame in; score, map and features out.

    Raises:
        EngineError: A name, type or shape differs, or a shape is open.
    """
    expected = {FRAME: (True, "uint8", 4), **{name: (False, "float32", rank) for name, rank in _OUTPUT_RANKS.items()}}
    found = {tensor.name: (tensor.is_input, tensor.dtype.name, len(tensor.shape)) for tensor in tensors}
    wrong = [tensor for tensor in tensors if found[tensor.name] != expected.get(tensor.name) or min(tensor.shape) < 1]
    missing = sorted(set(expected) - set(found))
    if wrong or missing:
        described = [f"{tensor.name} is {tensor.dtype.name} {tensor.shape}" for tensor in wrong]
        raise EngineError(
            what="the engine was not built from a fused network: "
            + "; ".join([*described, *(f"no {name}" for name in missing)]),
            remedy="build it from a bundle that `shiftwatch-calibrate fit` wrote: shiftwatch-calibrate build BUNDLE",
        )


class Buffers:
    """Memory of every tensor. Outputs that no engine returns stay on the GPU.

    With ``mapped`` the GPU reads the frame and writes the outputs in the CPU's memory, instead of copying.
    """

    def __init__(self, cuda: Cuda, tensors: Sequence[Tensor], *, mapped: bool) -> None:
        self._cuda = cuda
        self._pinned: dict[str, PinnedMemory] = {}
        self._device: dict[str, DeviceMemory] = {}
        with ExitStack() as resources:
            for tensor in tensors:
                is_used = tensor.name in {FRAME, *READ}
                if is_used:
                    pinned = self._pinned[tensor.name] = cuda.pinned(tensor.shape, tensor.dtype, mapped=mapped)
                    resources.callback(pinned.release)
                if not (is_used and mapped):
                    device = self._device[tensor.name] = cuda.device(tensor.size_bytes)
                    resources.callback(device.release)
            self._resources = resources.pop_all()

    @property
    def addresses(self) -> Mapping[str, int]:
        """Name -> address on the GPU."""
        memories: dict[str, PinnedMemory | DeviceMemory] = {**self._pinned, **self._device}
        return {name: _address(memory) for name, memory in memories.items()}

    def send(self, frame: Image) -> None:
        """Start to copy a frame to the GPU.

        Raises:
            EngineError: The frame differs in size or type from the network's input.
        """
        pinned = self._pinned[FRAME]
        target = pinned.array[0]
        if frame.shape != target.shape or frame.dtype != target.dtype:
            raise EngineError(
                what=f"the network takes {target.dtype} {target.shape}, the frame is {frame.dtype} {frame.shape}",
                remedy="preprocess the frame with the bundle's own preprocessing",
            )
        np.copyto(target, frame)
        if FRAME in self._device:
            self._cuda.upload(self._device[FRAME], pinned)

    def fetch(self) -> None:
        """Start to copy score and map back."""
        for name in READ:
            if name in self._device:
                self._cuda.download(self._pinned[name], self._device[name])

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of score and map; valid once the GPU has finished."""
        return [self._pinned[name].array.copy() for name in READ]

    def release(self) -> None:
        """Free all memory in reverse order. No work may be in flight."""
        self._resources.close()


def _address(memory: PinnedMemory | DeviceMemory) -> int:
    if memory.address is None:
        raise EngineError(
            what="the GPU has no address for mapped memory", remedy="check the driver: dmesg | grep -i nv"
        )
    return memory.address
