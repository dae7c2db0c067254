"""What a capture process costs: processor time and age of frames, against the same source in a thread.

The source is a camera that sends a JPEG picture 30 times a second, as USB cameras do, decoded like theirs. The loop
takes every frame and does nothing with it.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from agent.camera.direct import DirectCamera
from agent.camera.newest import NewestFrameCamera
from agent.camera.process import ProcessCamera

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.camera import Camera
    from calibration.preprocess import Image

FRAMES_PER_S = 30.0
SIZES = ((640, 480), (1920, 1080))
_WARM_UP_FRAMES = 15


class JpegCamera:
    """Sends one picture, again and again."""

    name = "jpeg"
    live = True
    frames_per_s = FRAMES_PER_S
    refused_settings: Sequence[str] = ()

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
        picture: Image | None = cv2.imdecode(self._sent, cv2.IMREAD_COLOR)
        return picture

    def close(self) -> None:
        pass


def jpeg_camera(columns: int, rows: int) -> JpegCamera:
    return JpegCamera(columns, rows)


@dataclass
class Cost:
    """Of one camera.

    Attributes:
        frames_per_s: Handed out.
        cpu: Share of one core, all processes together.
        age_ms: From the grab until the loop has the frame, median.
        worst_ms: The same, 99th percentile.
        dropped: Frames that the loop never saw.
    """

    frames_per_s: float
    cpu: float
    age_ms: float
    worst_ms: float
    dropped: int


def measure(camera: Camera, duration_s: float) -> Cost:
    """Watch it for a while. The start of a process is in its processor time and is no more than 0.2 s of it."""
    ages_ms: list[float] = []
    cpu_before_s = _cpu_s()
    with camera:
        began_s, seen = 0.0, 0
        for frame in camera:
            if frame is None:
                continue
            seen += 1
            if seen == _WARM_UP_FRAMES:
                began_s = time.monotonic()
            if seen > _WARM_UP_FRAMES:
                ages_ms.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
                if time.monotonic() - began_s > duration_s:
                    break
        took_s = time.monotonic() - began_s
    share = (_cpu_s() - cpu_before_s) / (took_s + _WARM_UP_FRAMES / FRAMES_PER_S)
    dropped = sum(count for reason, count in camera.dropped.items() if reason != "stopped")
    p50, p99 = np.percentile(ages_ms, [50, 99])
    return Cost(len(ages_ms) / took_s, share, float(p50), float(p99), dropped)


def _cpu_s() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    seconds = parser.parse_args().seconds
    table = Table("source", "capture", box=box.MARKDOWN)
    for title in ("frames/s", "CPU, % of a core", "age p50", "age p99", "dropped"):
        table.add_column(title, justify="right")
    for columns, rows in SIZES:
        cameras: dict[str, Camera] = {
            "thread": NewestFrameCamera(DirectCamera(JpegCamera(columns, rows))),
            "process": NewestFrameCamera(ProcessCamera("jpeg", jpeg_camera, {"columns": columns, "rows": rows})),
        }
        for kind, camera in cameras.items():
            cost = measure(camera, seconds)
            figures = (
                f"{cost.frames_per_s:.1f}",
                f"{cost.cpu:.1%}",
                f"{cost.age_ms:.1f} ms",
                f"{cost.worst_ms:.1f} ms",
            )
            table.add_row(f"{columns}x{rows}", kind, *figures, str(cost.dropped))
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    import capture

    capture.main()  # under a name that capture processes know, too
