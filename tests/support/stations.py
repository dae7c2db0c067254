"""A whole station for tests: pictures of parts, a bundle that knows them, a configuration, and the agent's process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml

from agent.outbox.outbox import Outbox
from agent.statistics.history import FILE_NAME
from agent.statistics.tables import counts_between, reading
from calibration.backbones.backbone import Backbone, filterbank_backbone
from calibration.imaging.preprocess import Preprocess, Region
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from typing_extensions import Self

    from agent.outbox.outbox import Waiting
    from calibration.imaging.preprocess import Image

ROWS, COLUMNS = 72, 96
REGION = Region(x=16, y=4, width=64, height=64)
THRESHOLD = 1e6
"""A broken part scores twenty times as much, a good one some thousands."""
ROOT = "acme/north/press/line2/cell4/vision/station1"
PATIENCE_S = 30.0
"""Only what hangs takes longer, on a machine with whatever else to do."""


def part(number: int, *, broken: bool = False) -> Image:
    """A disc before a plain background, (72, 96, 3); each number has its own noise."""
    random = np.random.default_rng(number)
    picture = np.full((ROWS, COLUMNS, 3), (60, 70, 65), np.uint8)
    cv2.circle(picture, (COLUMNS // 2, ROWS // 2), 22, (170, 175, 180), -1, cv2.LINE_AA)
    if broken:
        cv2.line(picture, (34, 22), (60, 48), (10, 10, 10), 4)
    noise = random.normal(0, 3, picture.shape) + random.normal(0, 2)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def good_parts(count: int, first: int = 1000) -> list[Image]:
    return [part(first + number) for number in range(count)]


def broken_parts(count: int, first: int = 2000) -> list[Image]:
    return [part(first + number, broken=True) for number in range(count)]


@dataclass
class Taught:
    """Good parts to learn from."""

    source: str = "drawn"
    sequential: bool = False
    skipped: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 30

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        return ((str(number), part(number)) for number in range(len(self)))

    def again(self, names: Collection[str]) -> Iterator[tuple[str, Image]]:
        return ((name, image) for name, image in self if name in names)


def teach(path: Path, backbone: Backbone | None = None) -> Path:
    """A bundle of the good parts, in a second."""
    settings = Settings(Preprocess(64, 64, REGION), false_reject_rate=0.004, threads=1)
    return calibrate(Taught(), backbone or filterbank_backbone(64, 64), settings, path, lambda *_: None).path


def strided_backbone() -> Backbone:
    """One layer of random weights, as an ONNX file may bring it: 12 channels at a stride of 8."""
    graph = GraphBuilder("strided")
    weights = graph.constant("weights", np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32) / 8)
    graph.add("Conv", "image", weights, strides=[8, 8], output="features")
    model = graph.model({"image": (FLOAT, (1, 3, 64, 64))}, {"features": (FLOAT, (1, 12, 8, 8))})
    return Backbone((FeatureGraph(model),), "strided.onnx", (), ("0" * 64,))


def write_pictures(folder: Path, images: Sequence[Image]) -> Path:
    """A folder that the camera plays, without loss."""
    folder.mkdir()
    for number, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"{number:04}.png"), image)
    return folder


def write_config(
    folder: Path,
    bundle: Path | Mapping[str, Path],
    source: Path | str | int,
    port: int,
    *,
    camera: dict[str, Any] | None = None,
    **more: dict[str, Any] | str,
) -> Path:
    """The configuration of a station in ``folder``; ``more`` are further keys."""
    path = folder / "station.yaml"
    levels = dict(zip(("enterprise", "site", "area", "line", "cell"), ROOT.split("/"), strict=False))
    content = {
        "bundle": str(bundle) if isinstance(bundle, Path) else {zone: str(path) for zone, path in bundle.items()},
        "camera": {"source": str(source) if isinstance(source, Path) else source, "playback": "fast", **(camera or {})},
        "station": {**levels, "name": "station1"},
        "mqtt": {"host": "127.0.0.1", "port": port},
        "engine": {"threads": 1, "backend": "onnxruntime"},  # `auto` would measure first, at each start
        "decision": {"threshold": THRESHOLD},
        **more,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def kept_records(folder: Path) -> list[Waiting]:
    """What waits in the outbox of a station that has ended."""
    with Outbox(folder / "state" / "outbox.sqlite") as outbox:
        return outbox.waiting(0, 1_000_000)


def counted_results(folder: Path) -> int:
    """How many results are in the statistics of a station."""
    with reading(folder / "state" / FILE_NAME) as database:
        return sum(each.results for each in counts_between(database, 0, 2**52))


@dataclass(frozen=True)
class Outcome:
    """Of a command that has ended."""

    code: int
    out: str
    err: str


class Agent:
    """``shiftwatch-agent run`` as a process of its own; ended, at the latest, with the ``with`` block."""

    def __init__(self, config: Path, *, wrapper: str | None = None) -> None:
        module = ["-m", "agent"] if wrapper is None else ["-c", wrapper]
        self._log = config.with_suffix(".log")
        with self._log.open("a") as log:
            command = [sys.executable, *module, "run", "--config", str(config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own program

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: signal.Signals) -> float:
        """Send a signal and wait; returns the seconds it took."""
        began_s = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        return time.monotonic() - began_s

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        return self.process.wait(timeout_s)


def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return when the condition holds; fail after the time-out."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)
