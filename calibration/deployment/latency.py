"""Measures how fast the network is on this machine."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.engine.cpu_cores import usable_cores
from calibration.plain_text import counted

if TYPE_CHECKING:
    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine

_RUNS = 25


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of the network alone, and the machine it was measured on."""

    median_ms: float
    runs: int
    backend: str
    processor: str


def measure_latency(bundle: Bundle, engine: Engine) -> Latency:
    """Time a bundle's network alone on its golden frames; the engine must be entered."""
    frames = bundle.golden().frames
    times_ms = []
    for frame in [frame for _ in range(_RUNS) for frame in frames]:
        start_ns = time.perf_counter_ns()
        engine(frame)
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return Latency(float(np.median(times_ms)), len(times_ms), engine.backend, processor_name())


def processor_name() -> str:
    """The processor's name, or its architecture if Linux does not give one; and the number of usable cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    cores = usable_cores()
    return f"{next(names, '') or platform.machine()}, {counted(cores, 'core')}"
