"""What the agent adds to the network: the whole loop per frame, divided by the bare engine call.

The loop is the real one: region and resize, network, verdict, record committed to the outbox, heartbeat; beside it the
publisher sends every record to a real mosquitto and the archive writes a picture of each defect. The frames are decoded
beforehand. Blocks of loop and of bare calls take turns, and a block of bare calls begins only when everything has been
sent, so that the loop pays for all of its own work.

With ``--everything`` frames are checked before they are trusted, metrics are fetched each second, and two browsers have
all pages open: the live page, whose process makes ten pictures a second, a gallery of 20,000 kept pictures, which they
scroll, filter and enlarge, the statistics of a year, and the page of a set-up that is over and still asks for its
state. The browsers are headless Chromium where it is installed, else clients that send the same requests. They have the
lowest priority, as they are on other devices.

By itself the next frame is there as soon as the last is done; ``--frames-per-s`` lets loop and bare engine wait for
theirs, as a camera does. Then each finds the cores idle, and what publisher and archive still have to do for the frame
before does not take them from the network.

The ratio is that of the fifth percentiles: a neighbour that takes a core away for a moment triples the time of a call,
so on a machine that is not ours alone medians compare neighbours.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import mtd
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from watched import BROWSERS, by_kind, watched

from agent.alerts.defect import Rules
from agent.alerts.store import ActiveAlerts
from agent.archive.archive import Archive
from agent.audit.log import AuditLog
from agent.camera import Frame
from agent.commands.dispatcher import CommandDispatcher
from agent.config.services import EngineConfig
from agent.demo.conveyor import REGION, parts
from agent.frame_checks.camera_checks import FrameChecks
from agent.inspection.loop import inspect
from agent.inspection.recorder import FanOut, Recorder
from agent.messages.records import ResultCode
from agent.messages.topics import Topics
from agent.metrics.loop_metrics import LoopMetrics
from agent.mqtt.connect import BrokerSettings
from agent.mqtt.live_messages import LiveMessages
from agent.mqtt.publisher import Publisher, Station
from agent.outbox.background import BackgroundOutbox
from agent.statistics.history import FILE_NAME, History
from agent.trigger.plc_handshake import Handshake
from agent.trigger.trigger import EveryFrame
from agent.zones.recipe import Recipe
from calibration.backbones.backbone import filterbank_backbone
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess, Region
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.long_past import MAX_MIB, count_a_year, keep_pictures
from tests.support.real_broker import free_port
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from typing_extensions import Self

    from agent.camera import CameraState
    from agent.inspection.score import PartInspection
    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image

SIDE = 224
THREADS = EngineConfig().thread_count()
"""As the agent without being told: all cores but one, which is for all that is not the network."""
_DEADLINE_MS = 1000
BLOCK = 10
BLOCKS = 30
WHOLE_FACTOR = Region(x=96, y=16, width=2 * SIDE, height=2 * SIDE)
"""Shrinks by a whole number, which OpenCV does several times faster than ``FRACTION``."""
FRACTION = REGION
TAUGHT_PARTS = 60
KEPT_PICTURES = 20_000
_DEFECT_EVERY = 20
_UNDISTURBED = 5
_DRAINED_WITHIN_S = 60.0
_LISTENS_WITHIN_S = 10.0


@dataclass
class Cost:
    """Milliseconds per frame.

    Attributes:
        loop_ms: From frame in hand to heartbeat.
        preprocess_ms: Of these, region and resize.
        engine_ms: The engine alone, on frames prepared beforehand.
        published: Records the broker has acknowledged.
        took_ms: Of the requests of the browsers, by their kind.
    """

    loop_ms: list[float] = field(default_factory=list)
    preprocess_ms: list[float] = field(default_factory=list)
    engine_ms: list[float] = field(default_factory=list)
    published: int = 0
    took_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The loop's cost by the engine's, both undisturbed."""
        return float(np.percentile(self.loop_ms, _UNDISTURBED) / np.percentile(self.engine_ms, _UNDISTURBED))


class Pace:
    """Of a camera.

    Args:
        frames_per_s: None waits for nothing.
    """

    def __init__(self, frames_per_s: float | None) -> None:
        self._interval_s = 0.0 if frames_per_s is None else 1.0 / frames_per_s
        self._due_s = 0.0

    def wait(self) -> None:
        """Until the next frame is there."""
        now_s = time.monotonic()
        if self._due_s > now_s:
            time.sleep(self._due_s - now_s)
        self._due_s = max(now_s, self._due_s) + self._interval_s


@dataclass
class DecodedFrames:
    """A camera whose frames are in memory; measures how long the loop keeps each."""

    images: list[Image]
    pace: Pace
    durations_ms: list[float] = field(default_factory=list)
    captured: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    state: CameraState = "running"
    reason: str = ""
    refused_settings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Frame]:
        for image in self.images:
            self.pace.wait()
            fresh = image.copy()  # in the caches, as a decoder leaves it
            start_ns = time.monotonic_ns()
            self.captured += 1
            yield Frame(self.captured, fresh, time.time_ns() // 1_000_000, start_ns)
            self.durations_ms.append((time.monotonic_ns() - start_ns) / 1e6)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to let go of."""

    def stop(self) -> None:
        """The list ends by itself."""


def measure(  # noqa: PLR0913 - what the figures depend on
    mosquitto: str,
    region: Region = WHOLE_FACTOR,
    blocks: int = BLOCKS,
    *,
    everything: bool = False,
    backbone: Backbone | None = None,
    threads: int = THREADS,
    frames_per_s: float | None = None,
    browsers: str = BROWSERS,
) -> Cost:
    """The cost of the loop and of the engine, by turns.

    Args:
        mosquitto: The broker's binary.
        region: Of the frames of 640x480 pixels.
        blocks: Of each.
        everything: With frame checks, metrics, and two browsers on all pages.
        backbone: None takes the filterbank, the cheapest there is.
        threads: Of the engine.
        frames_per_s: None takes as many as the loop can.
        browsers: ``chromium``, or ``http`` for clients that send the same requests.
    """
    images = [part.image for part in parts(BLOCK * 3, seed=2, defect_every=_DEFECT_EVERY)]
    cv2.setNumThreads(1)  # as `run_station`
    cost = Cost()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(running(mosquitto, folder))
        bundle = teach(folder, region, backbone)
        engine = stack.enter_context(OnnxRuntimeEngine(bundle.network, threads))
        outbox = stack.enter_context(BackgroundOutbox(folder / "outbox.sqlite"))
        topics = Topics("benchmark/vision/station")
        settings = BrokerSettings(host="127.0.0.1", port=port, client_id="loop")
        handshake = Handshake(_DEADLINE_MS, lambda: ResultCode.TOO_LATE)
        dialogue = dialogue_of(topics, handshake, folder)
        publisher = stack.enter_context(Publisher(settings, topics, outbox, _station(), dialogue))
        if everything:
            keep_pictures(folder / "archive", [part.image for part in parts(12, seed=3)], KEPT_PICTURES)
            count_a_year(folder / FILE_NAME)
        archive = stack.enter_context(Archive(folder / "archive", MAX_MIB if everything else 100))
        until(lambda: archive.is_reconciled, _DRAINED_WITHIN_S)  # as it is soon after the start
        rules = Rules(bundle.manifest.working_point.threshold)
        checks = (
            FrameChecks(bundle.reference(), bundle.preprocess, frozen_after=None, recheck_ms=100)
            if everything
            else None
        )
        recipe = Recipe(bundle.preprocess, engine, rules, bundle.manifest.backbone.grid, checks)
        active_alerts = ActiveAlerts(folder / "active_alert.json")
        metrics = LoopMetrics()
        page = stack.enter_context(watched(folder, metrics, browsers, cost.took_ms)) if everything else None
        history = stack.enter_context(History(folder / FILE_NAME, 100_000))
        outbox.before_forget = history.flush
        store = FanOut(outbox, *([] if page is None else [page]), history)
        recorder = Recorder(store, archive, handshake, publisher, topics, active_alerts, is_simulated=True)

        def heartbeat(seen: PartInspection | None) -> None:
            if seen is not None:
                metrics.note(seen.times_ms)
                if page is not None:
                    page.show(seen)
                cost.preprocess_ms.append(seen.times_ms["preprocess"])

        pace = Pace(frames_per_s)
        for number in range(blocks + 1):
            block = [images[(number * BLOCK + place) % len(images)] for place in range(BLOCK)]
            camera = DecodedFrames(block, pace)
            inspect(camera, EveryFrame(handshake), lambda: (recipe,), recorder, heartbeat)
            _wait_until_drained(outbox, archive)
            engine_ms = _bare(engine, [bundle.preprocess(image) for image in block], pace)
            if number:  # the first pair warms up
                cost.loop_ms += camera.durations_ms
                cost.engine_ms += engine_ms
        cost.published = publisher.published
    return cost


def dialogue_of(topics: Topics, handshake: Handshake, folder: Path) -> LiveMessages:
    """With a controller, and with nobody who commands."""
    return LiveMessages(
        topics, handshake, CommandDispatcher({}, AuditLog(folder / "audit.jsonl"), ()), handshake.overdue
    )


def teach(folder: Path, region: Region, backbone: Backbone | None = None) -> Bundle:
    """A network that has seen a few parts."""
    images = RenderedParts()
    settings = Settings(Preprocess(SIDE, SIDE, region), threads=THREADS)
    return calibrate(images, backbone or filterbank_backbone(SIDE, SIDE), settings, folder / "bundle", lambda *_: None)


@dataclass
class RenderedParts:
    """Good parts of the demo's conveyor."""

    source: str = "rendered"
    sequential: bool = True
    skipped: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return TAUGHT_PARTS

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        return ((f"part {number}", part.image) for number, part in enumerate(parts(TAUGHT_PARTS, seed=1)))

    def again(self, names: Collection[str]) -> Iterator[tuple[str, Image]]:
        return ((name, image) for name, image in self if name in names)


def _bare(engine: Engine, prepared: list[Image], pace: Pace) -> list[float]:
    durations_ms = []
    for frame in prepared:
        pace.wait()
        start_ns = time.monotonic_ns()
        engine(frame)
        durations_ms.append((time.monotonic_ns() - start_ns) / 1e6)
    return durations_ms


def _wait_until_drained(outbox: BackgroundOutbox, archive: Archive) -> None:
    deadline_s = time.monotonic() + _DRAINED_WITHIN_S
    while outbox.depth() or archive.waiting:
        if time.monotonic() > deadline_s:
            message = f"{outbox.depth()} records and {archive.waiting} pictures still wait"
            raise TimeoutError(message)
        time.sleep(0.01)


@contextmanager
def running(mosquitto: str, folder: Path) -> Iterator[int]:
    """The broker on a free port of this machine."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([mosquitto, "-c", str(config)], stderr=subprocess.DEVNULL) as broker:  # noqa: S603 - found on the path
        try:
            _wait_until_listening(port)
            yield port
        finally:
            broker.terminate()


def _wait_until_listening(port: int) -> None:
    deadline_s = time.monotonic() + _LISTENS_WITHIN_S
    while time.monotonic() < deadline_s:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    message = f"mosquitto does not listen on {port}"
    raise TimeoutError(message)


def _station() -> Station:
    return Station(
        session_id="benchmark", version="0", state=lambda: ("running", ""), info=dict, alert_state=dict, health=dict
    )


def mosquitto_binary() -> str | None:
    """Where Debian puts it is not on everybody's path."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def main() -> None:
    """Print both regions, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--blocks", type=int, default=BLOCKS, help=f"of the loop, and of the engine; {BLOCK} frames each"
    )
    parser.add_argument("--everything", action="store_true", help="with frame checks, metrics and two browsers")
    parser.add_argument("--browsers", choices=["chromium", "http"], default=BROWSERS, help="which; see above")
    parser.add_argument("--backbone", default="filterbank", help="see mtd.py")
    parser.add_argument("--threads", type=int, default=THREADS, help="of the engine")
    parser.add_argument("--frames-per-s", type=float, help="of the camera")
    arguments = parser.parse_args()
    binary = mosquitto_binary()
    if binary is None:
        parser.error("mosquitto is not installed: apt-get install mosquitto")
    table = Table("frame", box=box.MARKDOWN)
    for title in ("loop p5", "loop p50", "resize p50", "engine p5", "engine p50", "ratio of p5"):
        table.add_column(title, justify="right")
    took_ms: defaultdict[str, list[float]] = defaultdict(list)
    for region in (WHOLE_FACTOR, FRACTION):
        backbone = None if arguments.backbone == "filterbank" else mtd.backbone_of(arguments.backbone)
        cost = measure(
            binary,
            region,
            arguments.blocks,
            everything=arguments.everything,
            backbone=backbone,
            threads=arguments.threads,
            frames_per_s=arguments.frames_per_s,
            browsers=arguments.browsers,
        )
        times = [
            np.percentile(durations_ms, share)
            for durations_ms, shares in (
                (cost.loop_ms, (5, 50)),
                (cost.preprocess_ms, (50,)),
                (cost.engine_ms, (5, 50)),
            )
            for share in shares
        ]
        size = f"{region.width}x{region.height} to {SIDE}x{SIDE}"
        table.add_row(size, *(f"{ms:.2f} ms" for ms in times), f"{cost.ratio:.2f}")
        for kind, durations_ms in cost.took_ms.items():
            took_ms[kind] += durations_ms
    console = Console(width=140, highlight=False)
    console.print(table)
    if arguments.everything:
        console.print(f"requests of two browsers ({arguments.browsers}), which yield to everything else here:")
        console.print(by_kind(took_ms))


if __name__ == "__main__":
    main()
