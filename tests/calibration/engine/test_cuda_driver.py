from __future__ import annotations

import ctypes
from typing import Any

import pytest

from calibration.engine.cuda_driver import CudaDriver, Gpu, cuda_driver
from calibration.errors import EngineError

NO_DEVICE = 100


class Library:
    """libcuda as far as we use it: one Orin, unless told otherwise."""

    def __init__(self, *, gpus: int = 1, init: int = 0) -> None:
        self.gpus = gpus
        self.init = init

    def cuInit(self, flags: int) -> int:  # noqa: N802 - its name
        assert flags == 0
        return self.init

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: ANN401, N802
        version._obj.value = 12060
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: ANN401, N802
        count._obj.value = self.gpus
        return 0

    def cuDeviceGetName(self, name: Any, room: int, _number: int) -> int:  # noqa: ANN401, N802
        assert ctypes.sizeof(name) == room
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _number: int) -> int:  # noqa: ANN401, N802
        value._obj.value = {18: 1, 75: 8, 76: 7}[attribute]
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, _number: int) -> int:  # noqa: ANN401, N802
        size._obj.value = 8 * 2**30
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:  # noqa: ANN401, N802
        text._obj.value = b"no CUDA-capable device is detected" if code == NO_DEVICE else None
        return 0


def test_a_working_driver_names_its_gpus() -> None:
    asked: list[str] = []

    def load(name: str) -> Library:
        asked.append(name)
        return Library(gpus=2)

    orin = Gpu("Orin", "8.7", 8 * 2**30, integrated=True)
    assert cuda_driver(load) == CudaDriver((12, 6), (orin, orin))
    assert asked == ["libcuda.so.1"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("libcuda.so.1: cannot open shared object file: No such file or directory", "libcuda.so.1 not found"),
        ("libcuda.so.1: wrong ELF class: ELFCLASS32", "libcuda.so.1: wrong ELF class: ELFCLASS32"),
    ],
)
def test_without_a_driver_the_error_says_so(said: str, reason: str) -> None:
    def load(_: str) -> None:
        raise OSError(said)

    with pytest.raises(EngineError) as refusal:
        cuda_driver(load)
    assert refusal.value.what == f"no CUDA driver: {reason}"


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (Library(init=NO_DEVICE), r"cuInit: no CUDA-capable device is detected \(100\)"),
        (Library(init=4711), r"cuInit: unknown error \(4711\)"),
        (Library(gpus=0), "finds no GPU"),
    ],
)
def test_a_driver_without_a_gpu_cannot_be_used(library: Library, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        cuda_driver(lambda _: library)
