"""A station that learns on while it inspects: how long until the new bundle judges, and what the line feels of it.

A real agent process at 30 frames/s, without a broker, so that its outbox keeps every result with its times. First it is
left alone, then it recalibrates. ``torch`` cannot be imported in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import mtd
import numpy as np
import yaml
from loop import RenderedParts
from rich import box
from rich.table import Table

from agent.commands.control_socket import NAME, ask_station
from agent.demo.conveyor import REGION, parts
from agent.outbox.outbox import Outbox
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAMES = 400
_STARTS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 10.0
_SETTLES_S = 5.0
_ALL = 10_000_000


@dataclass
class Learning:
    """What the acknowledgements told, and when.

    Attributes:
        phases: Wall clock (ms) at which each began; ``live`` when the new bundle judged.
        last: The last answer.
    """

    began_ms: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)

    def run(self, state_dir: Path, arguments: dict[str, Any]) -> None:
        """Command it, and listen until it is over."""
        self.began_ms = time.time() * 1000
        command = {"command": "recalibrate", "commandId": "benchmark", "args": arguments}
        for answer in ask_station(state_dir, command):
            self.phases.setdefault(answer.get("phase", "live" if answer["progress"] == 1 else ""), time.time() * 1000)
            self.last = answer


def configuration(folder: Path, backbone: str, frames_per_s: float, shadow_parts: int) -> Path:
    """A bundle, pictures and a configuration."""
    settings = Settings(Preprocess(mtd.SIDE, mtd.SIDE, REGION), threads=mtd.THREADS)
    bundle = calibrate(RenderedParts(), mtd.backbone_of(backbone), settings, folder / "bundle", lambda *_: None)
    pictures = folder / "parts"
    pictures.mkdir()
    for number, part in enumerate(parts(FRAMES, seed=3)):
        cv2.imwrite(str(pictures / f"{number:04}.png"), part.image)
    path = folder / "station.yaml"
    content = {
        "bundle": str(bundle.path),
        "camera": {"source": str(pictures), "playback": "realtime", "frames_per_s": frames_per_s, "loop": True},
        "mqtt": {"port": 1},
        "recalibration": {"shadow_parts": shadow_parts},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def without_torch(folder: Path) -> dict[str, str]:
    """An environment in which nobody can import it."""
    for name in ("torch", "timm"):
        (folder / "blocked" / name).mkdir(parents=True)
        (folder / "blocked" / name / "__init__.py").write_text(f"raise ImportError('no {name} on a device')\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "blocked"), os.environ.get("PYTHONPATH", "")])}


def latencies(results: Sequence[dict[str, Any]], begin_ms: float, end_ms: float) -> list[float]:
    """Milliseconds from capture to record, of frames captured in between."""
    return [one["processingTimes"]["total"] for one in results if begin_ms <= one["creationTime"] < end_ms]


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbone", default="lite0", choices=mtd.BACKBONES)
    parser.add_argument("--mode", default="full")
    parser.add_argument("--without-weights", action="store_true", help="with --mode teach: teach the filterbank")
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--frames-per-s", type=float, default=30.0)
    parser.add_argument("--quiet-s", type=float, default=30.0)
    parser.add_argument("--shadow-parts", type=int, default=100)
    arguments = parser.parse_args()
    learning = Learning()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configuration(folder, arguments.backbone, arguments.frames_per_s, arguments.shadow_parts)
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
            agent = subprocess.Popen(command, stderr=log, stdout=log, env=without_torch(folder))  # noqa: S603 - our own program
        try:
            deadline_s = time.monotonic() + _STARTS_WITHIN_S
            while not (folder / "state" / NAME).exists() and time.monotonic() < deadline_s:
                time.sleep(0.1)
            time.sleep(_SETTLES_S)
            quiet_ms = time.time() * 1000
            time.sleep(arguments.quiet_s)
            backbone = "filterbank" if arguments.without_weights else None
            learning.run(folder / "state", {"mode": arguments.mode, "parts": arguments.parts, "backbone": backbone})
            time.sleep(1)
            agent.send_signal(signal.SIGTERM)
            agent.wait(_ENDS_WITHIN_S)
        finally:
            agent.kill()
        with Outbox(folder / "state" / "outbox.sqlite") as outbox:
            records = [one for one in outbox.waiting(0, _ALL) if one.kind == "result"]
        stopped = re.search(r"stopped: .*", (folder / "log").read_text())
    print_figures(arguments, learning, [json.loads(one.payload) for one in records], quiet_ms)
    mtd.console.print(stopped[0] if stopped else "the agent has not stopped")


def print_figures(
    arguments: argparse.Namespace, learning: Learning, results: list[dict[str, Any]], quiet_ms: float
) -> None:
    """Latencies as a table, the rest in lines."""
    table = Table("frames", "count", "p50 ms", "p99 ms", "max ms", box=box.MARKDOWN)
    phases = [(phase, at_ms) for phase, at_ms in learning.phases.items() if phase]
    end_ms = phases[-1][1]
    spans = [("quiet", quiet_ms, learning.began_ms), ("whole recalibration", learning.began_ms, end_ms)]
    spans += [(phase, at_ms, until_ms) for (phase, at_ms), (_, until_ms) in itertools.pairwise(phases)]
    for what, begin_ms, until_ms in spans:
        found = latencies(results, begin_ms, until_ms)
        if found:
            figures = (np.percentile(found, 50), np.percentile(found, 99), max(found))
            table.add_row(what, str(len(found)), *(f"{ms:.1f}" for ms in figures))
    mtd.console.print(table)
    seen = [one["seq"] for one in results]
    at_ms = dict(phases)
    mtd.console.print(f"{arguments.backbone}, mode {arguments.mode}, {arguments.parts} parts: {learning.last}")
    for before, after in itertools.pairwise(phases):
        mtd.console.print(f"{before[0]}: {(after[1] - before[1]) / 1000:.1f} s")
    if "learning" in at_ms and "live" in at_ms:
        whole_s = (at_ms["live"] - at_ms["learning"]) / 1000
        mtd.console.print(f"from the last part collected until the new bundle judges: {whole_s:.1f} s")
    mtd.console.print(f"results: {len(seen)}, of which twice: {len(seen) - len(set(seen))}; last seq {max(seen)}")


if __name__ == "__main__":
    main()
