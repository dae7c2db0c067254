"""How long a frame of 1280x720 with passing parts takes, on one thread: ``python -m tests.benchmarks.passing``."""

from __future__ import annotations

import time

import cv2
import numpy as np

from agent.belt.passing_parts import PassingParts
from tests.support.passing_belt import PassingBelt, random_things

_SIZE_PX = 90.0
_WARM = 20


def main() -> None:
    """Print median and worst time a frame, by the processor's clock and by the wall's."""
    cv2.setNumThreads(1)
    things = random_things(30, seed=3, size_px=_SIZE_PX, height=720, apart_px=(130, 260))
    seen = PassingBelt(things, width=1280, height=720, size_px=_SIZE_PX, speed_px_s=900)
    parts, took_ms, wall_ms, found = PassingParts(), [], [], 0
    for frame in seen.frames():
        wall, began = time.perf_counter(), time.process_time()
        found += len(parts(frame))
        took_ms.append((time.process_time() - began) * 1e3)
        wall_ms.append((time.perf_counter() - wall) * 1e3)
    for clock, times in (("processor", took_ms[_WARM:]), ("wall", wall_ms[_WARM:])):
        p50, p99 = np.percentile(times, (50, 99))
        print(f"{clock}: p50 {p50:.1f} ms, p99 {p99:.1f} ms a frame of 1280x720, {len(times)} frames, {found} parts")  # noqa: T201


if __name__ == "__main__":
    main()
