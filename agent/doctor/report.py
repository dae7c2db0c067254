"""One page about this device and its station: what is there, what is wrong, how to mend it. It changes nothing."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.config import model as configuration
from agent.doctor import camera_devices, machine, software, station_probes
from agent.doctor.finding import fault, ok
from agent.doctor.isolation import Check
from agent.errors import ConfigError
from agent.settings import station_topics
from calibration.terminal import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from agent.doctor.finding import Finding, Level

_SYSTEM = "restart the device; if it stays, see `dmesg`"
_DEVICE = (
    Check("Python", software.python, 15, _SYSTEM),
    Check("OpenCV", software.opencv, 15, "install it again: pip install --force-reinstall opencv-python-headless"),
    Check("ONNX Runtime", software.onnxruntime, 15, "install it again: pip install --force-reinstall onnxruntime"),
    Check("NVIDIA GPU", software.gpu, 20, "the driver is stuck or broken: restart the device, see `dmesg`"),
    Check("machine", machine.machine, 15, _SYSTEM),
    Check("cameras", camera_devices.cameras, 15, "a camera's driver is stuck: pull its plug, or restart the device"),
)
_RECORDS = Check(
    "records", station_probes.records, 15, "the disk of state_dir does not answer: check it, and its mount"
)
_CAMERA = Check(
    "camera", station_probes.camera, 30, "its driver is stuck, or its network is: pull its plug, check address"
)
_BROKER = Check(
    "broker", station_probes.broker, 25, "name resolution or network are stuck: try the broker's IP address"
)
_NETWORK = Check(
    "network", station_probes.network, 120, "start the agent and read its log; TensorRT may have to build first"
)

_LEVEL_WIDTH, _NAME_WIDTH = 9, 15
_NARROWEST = 20
_LEVELS: tuple[Level, ...] = ("ok", "warning", "fault")
_COLOURS = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def examine(config: Path | None, watch: Callable[[str], object]) -> Iterator[tuple[str, Finding]]:
    """Everything about this device, and about a station if one is given, each as it is found.

    Args:
        config: Configuration file of the station.
        watch: Told what is looked at next.

    Yields:
        ``device`` or ``station``, and what was found.
    """
    for check in _DEVICE:
        watch(check.name)
        yield from (("device", finding) for finding in check.ask())
    if config is not None:
        yield from (("station", finding) for finding in _examine_station(config, watch))


def _examine_station(file: Path, watch: Callable[[str], object]) -> Iterator[Finding]:
    try:
        topics = station_topics(configuration.load(file).station)
    except ConfigError as error:
        yield fault("configuration", error)
        return
    yield ok("configuration", f"{file}: well-formed, topics below {topics.root}")
    seen: Mapping[str, float] = {}
    for check in (_RECORDS, _CAMERA, _BROKER, _NETWORK):
        watch(check.name)
        # The network must keep up with the camera, and its region fit into the frame.
        findings = check.ask(config=str(file.absolute()), **(seen if check is _NETWORK else {}))
        yield from findings
        seen = findings[-1].figures if check is _CAMERA else seen


def as_json(report: Mapping[str, Sequence[Finding]]) -> str:
    """The page as one object: the worst level, then what was found, by section."""
    level = level_of(finding for findings in report.values() for finding in findings)
    sections = {section: [asdict(finding) for finding in findings] for section, findings in report.items()}
    return json.dumps({"level": level, **sections}, indent=2) + "\n"


def level_of(findings: Iterable[Finding]) -> Level:
    """The worst of them."""
    return max((finding.level for finding in findings), key=_LEVELS.index, default="ok")


def summary(findings: Iterable[Finding]) -> str:
    """How many faults and warnings there are."""
    counts = Counter(finding.level for finding in findings)
    found = [f"{counts[level]} {level}{'s' * (counts[level] > 1)}" for level in ("fault", "warning") if counts[level]]
    return ", ".join(found) or "nothing to mend"


def lines(finding: Finding, width: int | None) -> Iterator[str]:
    """A finding as it stands on the page, in rich's markup.

    Args:
        finding: What was found.
        width: Where to break lines, in characters; None breaks none, so that each finding stays one for `grep`.
    """
    indent = " " * (_LEVEL_WIDTH + _NAME_WIDTH)
    texts = [finding.found, *([f"-> {finding.remedy}"] if finding.level != "ok" else [])]
    broken = [line for text in texts for line in _broken(text, width and max(width - len(indent), _NARROWEST))]
    colour = _COLOURS[finding.level]
    yield f"[{colour}]{finding.level:<{_LEVEL_WIDTH}}[/]{finding.name:<{_NAME_WIDTH - 1}} {escape(broken[0])}"
    for line in broken[1:]:
        yield f"{indent}{escape(line)}"


def _broken(text: str, width: int | None) -> list[str]:
    if width is None:
        return text.splitlines()
    return [part for line in text.splitlines() for part in textwrap.wrap(line, width, break_long_words=False)]
