"""Watch a station work, and tell whether it would do so for months: memory, file handles, latency.

    python tests/faults/soak.py [--minutes 10] [--backbone filterbank]

The agent is a process of its own, with checks, archive, metrics and outbox as by default. Its camera is an MJPEG
stream at 30 frames a second from another process, which its capture process decodes; its broker is a real mosquitto.
Exit code 1 when memory or handles grow beyond noise, a frame is not accounted for, or p99 is above twice p50.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import socket
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "benchmarks")]

from agent.demo.conveyor import REGION, parts, write_video
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.real_broker import Listener, Mosquitto, free_port, mosquitto_binary
from tests.support.stations import Agent, until, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone

FRAMES_PER_S = 30.0
TAUGHT_PARTS = 100
WARM_UP_S = 15.0
SAMPLE_EVERY_S = 0.5
NOISE_KIB = 1024.0
"""Memory allocators give back in steps: what is less than this is no leak that a run of minutes could show."""
PATIENCE_S = 60.0
_DEFECT_EVERY = 40
_BOUNDARY = b"frame"


@dataclass
class Observed:
    """What was seen from outside, once in a while; after the warm-up."""

    at_s: list[float] = field(default_factory=list)
    memory_kib: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def slope_kib_per_min(self) -> float:
        """The median of the slopes between all pairs of samples (Theil and Sen): a single step does not make it."""
        return 60.0 * _slope(np.array(self.at_s), np.array(self.memory_kib))

    @property
    def growth_kib(self) -> float:
        """What the slope makes over the run."""
        return self.slope_kib_per_min / 60.0 * (self.at_s[-1] - self.at_s[0])

    @property
    def p50_ms(self) -> float:
        """Of the latency from capture to record."""
        return float(np.percentile(self.latencies_ms, 50))

    @property
    def p99_ms(self) -> float:
        """Of the latency from capture to record."""
        return float(np.percentile(self.latencies_ms, 99))

    def problems(self) -> list[str]:
        """What would not go well for months."""
        quarter = max(1, len(self.handles) // 4)
        found = []
        if self.growth_kib > max(NOISE_KIB, 3.0 * float(np.std(np.diff(self.memory_kib)))):
            found.append(f"memory grows by {self.slope_kib_per_min:.0f} KiB a minute")
        if max(self.handles[-quarter:]) > max(self.handles[:quarter]):
            found.append(f"file handles grow from {max(self.handles[:quarter])} to {max(self.handles[-quarter:])}")
        if self.p99_ms > 2.0 * self.p50_ms:
            found.append(f"p99 of {self.p99_ms:.1f} ms is more than twice the p50 of {self.p50_ms:.1f} ms")
        return found


def soak(
    minutes: float, backbone: Backbone, folder: Path, broker: Mosquitto, warm_up_s: float = WARM_UP_S
) -> tuple[Observed, dict[str, Any]]:
    """Run a station for so long after its warm-up, and watch it.

    Returns:
        What was observed, and its last words about itself (topic ``health``).
    """
    video = folder / "good.avi"
    write_video(video, parts(TAUGHT_PARTS, seed=1), FRAMES_PER_S)
    preprocess = Preprocess(*backbone.input_size, REGION)
    bundle = calibrate(good_images(video), backbone, Settings(preprocess), folder / "bundle", _silent)
    broker.start()
    with Stream() as url, closing(Listener(broker.port)) as heard:
        config = write_config(
            folder,
            bundle.path,
            url,
            broker.port,
            camera={"playback": "realtime"},
            engine={"threads": 2},
            decision={},
            metrics={"port": free_port()},
        )
        with Agent(config) as agent:
            until(lambda: heard.on("result") or agent.process.poll() is not None, PATIENCE_S)
            assert agent.process.poll() is None, agent.log
            time.sleep(warm_up_s)
            observed, since = Observed(), len(heard.on("result"))
            began_s = time.monotonic()
            while time.monotonic() < began_s + 60.0 * minutes:
                time.sleep(SAMPLE_EVERY_S)
                memory_kib, handles = _of_process_and_children(agent.process.pid)
                observed.at_s.append(time.monotonic())
                observed.memory_kib.append(memory_kib)
                observed.handles.append(handles)
            agent.end(signal.SIGTERM)
        results = heard.on("result")[since:]
        observed.latencies_ms += [result["processingTimes"]["total"] for result in results]
        return observed, {**heard.on("health")[-1], "results": len(results)}


class Stream:
    """A camera: pictures of parts as MJPEG over HTTP, at their own rate, from a process of its own."""

    def __enter__(self) -> str:
        """Start; its address."""
        server = socket.create_server(("127.0.0.1", 0))
        self._process = multiprocessing.get_context("fork").Process(target=_serve, args=(server,), daemon=True)
        self._process.start()
        port = server.getsockname()[1]
        server.close()
        return f"http://127.0.0.1:{port}/stream.mjpg"

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


def _serve(server: socket.socket) -> None:
    pictures = [
        cv2.imencode(".jpg", part.image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        for part in parts(120, seed=2, defect_every=_DEFECT_EVERY)
    ]
    while True:
        line, _ = server.accept()
        with line:
            try:
                line.recv(4096)
                line.sendall(
                    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=" + _BOUNDARY + b"\r\n\r\n"
                )
                for picture in _in_time(pictures):
                    head = b"--%b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
                    line.sendall(head % (_BOUNDARY, len(picture)) + picture + b"\r\n")
            except OSError:
                continue


def _in_time(pictures: list[bytes]) -> Iterator[bytes]:
    due_s = time.monotonic()
    while True:
        for picture in pictures:
            time.sleep(max(0.0, due_s - time.monotonic()))
            yield picture
            due_s = max(due_s + 1.0 / FRAMES_PER_S, time.monotonic() - 1.0)


def _of_process_and_children(pid: int) -> tuple[float, int]:
    """Resident memory, KiB; and open file handles. What they share counts for each."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [child for thread in threads for child in (thread / "children").read_text().split()]
    memory_kib, handles = 0.0, 0
    for each in (str(pid), *children):
        status = Path(f"/proc/{each}/status").read_text()
        memory_kib += next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        handles += len(list(Path(f"/proc/{each}/fd").iterdir()))
    return memory_kib, handles


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def _silent(_step: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def main() -> int:
    """Run, print, say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--backbone", default="lite0", help="see tests/benchmarks/mtd.py")
    given = parser.parse_args()
    import mtd  # noqa: PLC0415 - of the benchmarks, where this is a program

    binary = mosquitto_binary()
    if binary is None:
        print("mosquitto is not installed: apt-get install mosquitto")  # noqa: T201 - a program
        return 2
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "broker").mkdir()
        broker = Mosquitto(binary, Path(name) / "broker")
        try:
            observed, health = soak(given.minutes, mtd.backbone_of(given.backbone), Path(name), broker)
        finally:
            broker.stop()
    print(  # noqa: T201 - a program
        f"{given.backbone}, {health['results']} results in {observed.at_s[-1] - observed.at_s[0]:.0f} s, "
        f"{health['results'] / (observed.at_s[-1] - observed.at_s[0]):.1f} a second\n"
        f"memory {observed.memory_kib[0] / 1024:.1f} to {observed.memory_kib[-1] / 1024:.1f} MiB (agent and capture), "
        f"slope {observed.slope_kib_per_min:+.1f} KiB a minute\n"
        f"file handles {observed.handles[0]} to {observed.handles[-1]}\n"
        f"latency p50 {observed.p50_ms:.1f} ms, p99 {observed.p99_ms:.1f} ms, "
        f"ratio {observed.p99_ms / observed.p50_ms:.2f}\n"
        f"dropped {json.dumps(health['dropped'])}"
    )
    print("\n".join(observed.problems()) or "steady")  # noqa: T201 - a program
    return 1 if observed.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
