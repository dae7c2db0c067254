"""What a capture process costs: processor time and age of frames, against the same source in a thread.

The source is a camera that sends a JPEG picture 30 times a second, as USB cameras do, decoded like theirs. The loop
takes every frame and does nothing with it. Thread and process run by turns, and of each the turn with the least
processor time a frame counts, so that a busy machine delays a figure more than it changes it.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from agent.camera.file_camera import FileCamera
from agent.camera.newest_frame import NewestFrameCamera
from agent.camera.process_camera import ProcessCamera

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.camera import Camera
    from calibration.imaging.preprocess import Image

FRAMES_PER_S = 30.0
SIZES = ((640, 480), (1920, 1080))
_WARM_UP_FRAMES = 15


class JpegCamera:
    """Sends one picture, again and again."""

    name = "jpeg"
    live = True
    frames_per_s = FRAMES_PER_S
    refused_settings: Sequence[str] = ()
    is_rescaled = False
    stamp = None

    def __init__(self, columns: int, rows: int) -> None:
        random = np.random.default_rng(0)
        coarse = random.integers(0, 256, (rows // 20, columns // 20, 3), np.uint8)
        self._sent = cv2.imencode(".jpg", cv2.resize(coarse, (columns, rows)))[1]
        self._due_s = 0.0

    def open(self) -> None:
        self._due_s = time.monotonic()

    def grab(self) -> bool:
        self._due_s += 1 / FRAMES_PER_S
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        return True

    def retrieve(self) -> Image | None:
        picture = cv2.imdecode(self._sent, cv2.IMREAD_COLOR)
        return None if picture is None else np.asarray(picture, np.uint8)

    def trigger(self) -> None:
        pass

    def close(self) -> None:
        pass


def jpeg_camera(columns: int, rows: int) -> JpegCamera:
    return JpegCamera(columns, rows)


@dataclass
class Cost:
    """Of one camera.

    Attributes:
        frames_per_s: Handed out.
        cpu_ms: Processor time a frame, all processes together.
        age_ms: From the grab until the loop has the frame, median.
        worst_ms: The same, 99th percentile.
        dropped: Frames that the loop never saw.
    """

    frames_per_s: float
    cpu_ms: float
    age_ms: float
    worst_ms: float
    dropped: int


def measure(camera: Camera, duration_s: float) -> Cost:
    """Watch it for a while, once it is under way."""
    ages_ms: list[float] = []
    with camera:
        warm_up = _WARM_UP_FRAMES
        for frame in camera:
            if frame is None:
                continue
            if warm_up:
                warm_up -= 1
                began_s, cpu_before_s, captured_before = time.monotonic(), _cpu_s(), camera.captured
                continue
            ages_ms.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
            if time.monotonic() - began_s > duration_s:
                break
        took_s = time.monotonic() - began_s
        cpu_ms = 1e3 * (_cpu_s() - cpu_before_s) / (camera.captured - captured_before)
    dropped = sum(count for reason, count in camera.dropped.items() if reason != "stopped")
    p50, p99 = np.percentile(ages_ms, [50, 99])
    return Cost(len(ages_ms) / took_s, cpu_ms, float(p50), float(p99), dropped)


def _cpu_s() -> float:
    """Of this process and its children."""
    children = [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    # As clock_getcpuclockid(3) numbers the clocks of processes.
    return sum(time.clock_gettime((~process << 3) | 2) for process in (os.getpid(), *children))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=4, help="of each")
    arguments = parser.parse_args()
    table = Table("source", "capture", box=box.MARKDOWN)
    for title in ("frames/s", "CPU a frame", "age p50", "age p99", "dropped"):
        table.add_column(title, justify="right")
    for columns, rows in SIZES:
        kinds = {"thread": _in_thread, "process": _in_process}
        turns = [
            {kind: measure(make(columns, rows), arguments.seconds) for kind, make in kinds.items()}
            for _ in range(arguments.turns)
        ]
        for kind in kinds:
            costs = [turn[kind] for turn in turns]
            best = min(costs, key=lambda cost: cost.cpu_ms)
            figures = (
                f"{best.frames_per_s:.1f}",
                f"{best.cpu_ms:.2f} ms",
                f"{best.age_ms:.1f} ms",
                f"{best.worst_ms:.1f} ms",
            )
            table.add_row(f"{columns}x{rows}", kind, *figures, str(sum(cost.dropped for cost in costs)))
    Console(width=120, highlight=False).print(table)


def _in_thread(columns: int, rows: int) -> Camera:
    return NewestFrameCamera(FileCamera(JpegCamera(columns, rows)))


def _in_process(columns: int, rows: int) -> Camera:
    return NewestFrameCamera(ProcessCamera("jpeg", jpeg_camera, {"columns": columns, "rows": rows}))


if __name__ == "__main__":
    import capture

    capture.main()  # under a name that capture processes know, too
