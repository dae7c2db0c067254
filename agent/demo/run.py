"""``shiftwatch-agent demo``: calibrate, inspect and alert on one machine; only the camera is simulated."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from rich.table import Table

from agent.child_process import peak_memory_mib
from agent.config.model import load
from agent.demo.broker import embedded_broker
from agent.demo.conveyor import DEFECTS, REGION, parts, write_video
from agent.demo.listener import LineListener
from agent.from_config import station_topics
from agent.messages.records import Evaluation
from calibration.backbones.backbone import filterbank_backbone
from calibration.errors import EngineError, StorageError
from calibration.imaging.preprocess import Preprocess
from calibration.plain_text import rounded
from calibration.terminal import console, escape, progress_bar
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.demo.conveyor import Part
    from calibration.bundle.bundle import Bundle
    from calibration.progress import Progress

CALIBRATION_PARTS = 300
INSPECTED_PARTS = 320
_PARTS_PER_S = 8.0
_DEFECT_EVERY = 10
_FALSE_REJECT_RATE = 0.0005
_SIDE = REGION.width  # the camera's full resolution, because a scratch is two pixels wide
_MARK = "made-by-shiftwatch-demo"
_OFFLINE_TIMEOUT_S = 5.0
_REQUIRED_SHARE, _TOLERATED_FALSE_ALARMS = 0.9, 2


@dataclass(frozen=True)
class Outcome:
    """The result of the demo.

    Attributes:
        planted: Kind of defect -> number on the belt.
        found: Kind of defect -> number of these reported as NotOK.
        false_alarms: Number of good parts reported as NotOK.
    """

    seen: int
    planted: dict[str, int]
    found: dict[str, int]
    false_alarms: int
    frames_per_s: float
    p50_ms: float
    p99_ms: float
    peak_memory_mib: float | None
    pictures: Path

    @property
    def convincing(self) -> bool:
        """Whether at least 90 % of the defects were found, with at most two false alarms."""
        share = sum(self.found.values()) / max(1, sum(self.planted.values()))
        return share >= _REQUIRED_SHARE and self.false_alarms <= _TOLERATED_FALSE_ALARMS


def run_demo(folder: Path) -> Outcome:
    """Run the demo.

    Args:
        folder: Folder for all files; that of an earlier demo is replaced.

    Raises:
        StorageError: The folder was not made by the demo, or the disk is full.
        SettingError: amqtt is not installed.
        EngineError: The agent failed.
    """
    with embedded_broker() as port:  # first, because amqtt may be missing
        _prepare_folder(folder)
        truth = _record_videos(folder)
        console.print("[bold]2. Calibrate with the good parts[/], without weights, without a GPU")
        bundle = _calibrate(folder)
        console.print(
            f"   threshold {rounded(bundle.manifest.working_point.threshold, 4)}, bundle {bundle.identity[:12]}"
        )
        console.print("[bold]3. Inspect[/]: the agent publishes over MQTT; these are its alerts")
        outcome = _inspect(folder, truth, port)
    print_outcome(outcome)
    return outcome


def _prepare_folder(folder: Path) -> None:
    if folder.exists() and not (folder / _MARK).exists():
        raise StorageError(
            what=f"{folder.absolute()} exists and was not made by the demo",
            remedy="choose another folder: shiftwatch-agent demo --folder FOLDER",
        )
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / _MARK).touch()
    except OSError as error:
        raise StorageError(
            what=f"cannot write to {folder.absolute()}: {error.strerror}", remedy="choose another with --folder FOLDER"
        ) from error


def _record_videos(folder: Path) -> list[str | None]:
    """Record good and unknown parts; return the defect of each unknown part, None for a good one."""
    console.print(
        f"[bold]1. A camera over a belt[/]: {CALIBRATION_PARTS} good parts, then {INSPECTED_PARTS} unknown ones"
    )
    with progress_bar() as progress:
        _record(folder / "taught.avi", CALIBRATION_PARTS, seed=1, defect_every=None, progress=progress)
        return _record(folder / "watched.avi", INSPECTED_PARTS, seed=2, defect_every=_DEFECT_EVERY, progress=progress)


def _record(path: Path, count: int, *, seed: int, defect_every: int | None, progress: Progress) -> list[str | None]:
    def with_progress(stream: Iterable[Part]) -> Iterator[Part]:
        for number, part in enumerate(stream, start=1):
            progress(f"{path.stem} parts", number, count)
            yield part

    return write_video(path, with_progress(parts(count, seed=seed, defect_every=defect_every)), _PARTS_PER_S)


def _calibrate(folder: Path) -> Bundle:
    settings = Settings(Preprocess(_SIDE, _SIDE, REGION), false_reject_rate=_FALSE_REJECT_RATE)
    with progress_bar() as progress:
        images, backbone = good_images(folder / "taught.avi"), filterbank_backbone(_SIDE, _SIDE)
        return calibrate(images, backbone, settings, folder / "bundle", progress)


def _inspect(folder: Path, truth: list[str | None], port: int) -> Outcome:
    config = _write_config(folder, port)
    topics = station_topics(load(config).station)
    with LineListener(port, topics, lambda alert, result: _print_alert(alert, result, truth)) as line:
        peak_memory_mib = _run_agent(config, folder / "agent.log")
        line.offline.wait(_OFFLINE_TIMEOUT_S)
        return _outcome(line, truth, peak_memory_mib, folder / "state" / "archive")


def _write_config(folder: Path, port: int) -> Path:
    config = {
        "bundle": "bundle",
        "camera": {"source": "watched.avi", "playback": "realtime"},
        "station": {"enterprise": "demo", "name": "flange-check"},
        "mqtt": {"host": "127.0.0.1", "port": port, "protocol": "3.1.1"},
        "decision": {"clear_after": 1},
    }
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _run_agent(config: Path, log: Path) -> float | None:
    """Run the agent as a process until the video ends; return its peak memory in MiB."""
    command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
    peak_mib: float | None = None
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as agent:  # noqa: S603 - our own program
        try:
            while agent.poll() is None:
                peak_mib = peak_memory_mib(agent.pid) or peak_mib
                time.sleep(0.1)
        finally:
            agent.terminate()
    if agent.returncode:
        raise EngineError(
            what=f"the agent stopped with exit code {agent.returncode}: {log.read_text()[-500:]}",
            remedy=f"read {log}",
        )
    return peak_mib


def _print_alert(alert: dict[str, Any], result: dict[str, Any] | None, truth: list[str | None]) -> None:
    if alert["type"] == "end" or result is None:
        return
    planted = truth[result["seq"]]
    what = f"[green]planted: {planted}[/]" if planted else "[red]a good part[/]"
    when = time.strftime("%H:%M:%S", time.localtime(result["creationTime"] / 1000))
    console.print(
        f"   {when} alert [bold]{alert['type']}[/] part {result['seq']:>3} score {result['score']:>6,.0f}"
        f" severity {alert['severity']:>4} {what}"
    )


def _outcome(line: LineListener, truth: list[str | None], peak_memory_mib: float | None, pictures: Path) -> Outcome:
    rejected = {seq for seq, result in line.results.items() if result["resultEvaluation"] == Evaluation.NOT_OK}
    defective = {kind: {seq for seq, planted in enumerate(truth) if planted == kind} for kind in DEFECTS}
    times = sorted(result["creationTime"] for result in line.results.values())
    latencies = [result["processingTimes"]["total"] for result in line.results.values()] or [float("nan")]
    return Outcome(
        seen=len(line.results),
        planted={kind: len(seqs) for kind, seqs in defective.items()},
        found={kind: len(seqs & rejected) for kind, seqs in defective.items()},
        false_alarms=len(rejected - set().union(*defective.values())),
        frames_per_s=(len(times) - 1) * 1000 / max(1, times[-1] - times[0]) if times else 0.0,
        p50_ms=float(np.percentile(latencies, 50)),
        p99_ms=float(np.percentile(latencies, 99)),
        peak_memory_mib=peak_memory_mib,
        pictures=pictures,
    )


def print_outcome(outcome: Outcome) -> None:
    """Print what was planted, what was found, and where the pictures are."""
    planted, found = sum(outcome.planted.values()), sum(outcome.found.values())
    table = Table("what was reported", "")
    table.add_row("parts seen", f"{outcome.seen} of {INSPECTED_PARTS}")
    table.add_row("defects planted", str(planted))
    table.add_row("defects found", f"{found} ({found / planted:.0%})")
    for kind, count in outcome.planted.items():
        table.add_row(f"  {kind}", f"{outcome.found[kind]} of {count}")
    table.add_row("false alarms", str(outcome.false_alarms))
    table.add_row("frames per second", f"{outcome.frames_per_s:.1f} (the belt's own pace)")
    table.add_row("latency p50 / p99", f"{outcome.p50_ms:.1f} / {outcome.p99_ms:.1f} ms, from capture to verdict")
    if outcome.peak_memory_mib is not None:
        table.add_row("agent's peak memory", f"{outcome.peak_memory_mib:.0f} MiB")
    table.add_row("pictures of defects", escape(str(outcome.pictures)))
    console.print(table)
    console.print("next: your first station, see README.md")
