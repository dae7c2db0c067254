"""Where a network on the GPU reads its frame and writes its outputs."""

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
_OUTPUTS = {"score": 1, "map": 3, "features": 4}
_SELDOM_READ = "features"  # the largest, and asked for by recalibration only: never worth mapping


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the network: shape with the batch of one, and NumPy's type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool

    @property
    def size_bytes(self) -> int:
        """Of all its elements."""
        return prod(self.shape) * self.dtype.itemsize


def refuse_unfit(tensors: Sequence[Tensor]) -> None:
    """Refuse a network that is not frame in; score, map and features out.

    Raises:
        EngineError: Names, types or shapes are others, or a shape is open.
    """
    expected = {FRAME: (True, "uint8", 4), **{name: (False, "float32", rank) for name, rank in _OUTPUTS.items()}}
    found = {tensor.name: (tensor.is_input, tensor.dtype.name, len(tensor.shape)) for tensor in tensors}
    wrong = [tensor for tensor in tensors if found[tensor.name] != expected.get(tensor.name) or min(tensor.shape) < 1]
    missing = sorted(set(expected) - set(found))
    if wrong or missing:
        described = [f"{tensor.name} is {tensor.dtype.name} {tensor.shape}" for tensor in wrong]
        raise EngineError(
            what="the engine is not of a fused network: "
            + "; ".join([*described, *(f"no {name}" for name in missing)]),
            remedy="build it from a bundle that `shiftwatch-calibrate fit` wrote: shiftwatch-calibrate build BUNDLE",
        )


@dataclass(frozen=True, slots=True)
class _Pair:
    """One tensor on both sides; without ``device`` the GPU uses the CPU's memory in place."""

    pinned: PinnedMemory
    device: DeviceMemory | None


class Buffers:
    """Memory of every tensor.

    Args:
        cuda: Where it lies.
        tensors: Of the network.
        mapped: Let the GPU read the frame and write score and map in the CPU's memory, instead of copying.
    """

    def __init__(self, cuda: Cuda, tensors: Sequence[Tensor], *, mapped: bool) -> None:
        self._cuda = cuda
        with ExitStack() as resources:
            self._pairs = {tensor.name: self._pair(tensor, resources, mapped=mapped) for tensor in tensors}
            self._resources = resources.pop_all()

    def _pair(self, tensor: Tensor, resources: ExitStack, *, mapped: bool) -> _Pair:
        in_place = mapped and tensor.name != _SELDOM_READ
        pinned = self._cuda.pinned(tensor.shape, tensor.dtype, mapped=in_place)
        resources.callback(pinned.release)
        if in_place:
            return _Pair(pinned, None)
        device = self._cuda.device(tensor.size_bytes)
        resources.callback(device.release)
        return _Pair(pinned, device)

    @property
    def addresses(self) -> Mapping[str, int]:
        """Name -> address on the GPU."""
        return {name: _address(pair) for name, pair in self._pairs.items()}

    def send(self, frame: Image) -> None:
        """Begin to bring a frame to the GPU.

        Raises:
            EngineError: Not of the network's size or type.
        """
        pair = self._pairs[FRAME]
        place = pair.pinned.array[0]
        if frame.shape != place.shape or frame.dtype != place.dtype:
            raise EngineError(
                what=f"the network takes {place.dtype} {place.shape}, the frame is {frame.dtype} {frame.shape}",
                remedy="preprocess the frame with the bundle's own preprocessing",
            )
        np.copyto(place, frame)
        if pair.device is not None:
            self._cuda.upload(pair.device, pair.pinned)

    def fetch(self, names: Sequence[str]) -> None:
        """Begin to bring outputs back."""
        for pair in (self._pairs[name] for name in names):
            if pair.device is not None:
                self._cuda.download(pair.pinned, pair.device)

    def outputs(self, names: Sequence[str]) -> list[NDArray[Any]]:
        """What was fetched, as arrays of their own; valid once the GPU has been waited for."""
        return [self._pairs[name].pinned.array.copy() for name in names]

    def release(self) -> None:
        """Give all memory back, the last first; nothing may be in flight."""
        self._resources.close()


def _address(pair: _Pair) -> int:
    address = pair.pinned.address if pair.device is None else pair.device.address
    if address is None:
        raise EngineError(
            what="the GPU has no address for mapped memory", remedy="look at the driver: dmesg | grep -i nv"
        )
    return address
