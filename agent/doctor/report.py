"""Runs all probes on this device and its station, and formats their findings."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.config import model as configuration
from agent.doctor import camera_devices, camera_probe, genicam_devices, machine, network_probe, software, station_probes
from agent.doctor.finding import fault, ok
from agent.doctor.isolation import Check
from agent.errors import ConfigError
from agent.from_config import station_topics
from calibration.terminal import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from agent.doctor.finding import Finding, Level

_RESTART = "restart the device; if the problem stays, see `dmesg`"
_DEVICE = (
    Check("Python", software.python, 15, _RESTART),
    Check("OpenCV", software.opencv, 15, "reinstall it: pip install --force-reinstall opencv-python-headless"),
    Check("ONNX Runtime", software.onnxruntime, 15, "reinstall it: pip install --force-reinstall onnxruntime"),
    Check("OpenVINO", software.openvino, 15, "reinstall it: pip install --force-reinstall openvino"),
    Check("NVIDIA GPU", software.gpu, 20, "the driver hangs or is broken: restart the device, and see `dmesg`"),
    Check("machine", machine.machine, 15, _RESTART),
    Check("cameras", camera_devices.cameras, 15, "a camera driver hangs: unplug the camera, or restart the device"),
    Check("GenICam cameras", genicam_devices.genicam_cameras, 15, "Aravis hangs: unplug the cameras one by one"),
)
_STATION = (
    Check("records", station_probes.records, 15, "the disk of state_dir does not respond: check it and its mount"),
    Check("secrets", station_probes.secrets_and_access, 15, "the disk of these files does not respond: check it"),
    Check("camera", camera_probe.camera, 30, "its driver or its network hangs: check its address, or unplug it"),
    Check("broker", station_probes.broker, 25, "name resolution or the network hangs: try the broker's IP address"),
    Check("network", network_probe.network, 120, "start the agent and read its log: TensorRT may have to build first"),
)

_LEVEL_WIDTH, _NAME_WIDTH = 9, 15
_NARROWEST = 20
_LEVELS: tuple[Level, ...] = ("ok", "warning", "fault")
_COLOURS = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def examine(config: Path | None, on_check: Callable[[str], object]) -> Iterator[tuple[str, Finding]]:
    """Check this device, and a station if its configuration file is given.

    Yields ``device`` or ``station`` with each finding. ``on_check`` gets the name of each check before it runs.
    """
    for check in _DEVICE:
        on_check(check.name)
        yield from (("device", finding) for finding in check.findings())
    if config is not None:
        yield from (("station", finding) for finding in _examine_station(config, on_check))


def _examine_station(file: Path, on_check: Callable[[str], object]) -> Iterator[Finding]:
    try:
        topics = station_topics(configuration.load(file).station)
    except ConfigError as error:
        yield fault("configuration", error)
        return
    yield ok("configuration", f"{file} is valid; topics start with {topics.root}")
    camera_figures: Mapping[str, float] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as frames:
        for check in _STATION:
            on_check(check.name)
            # The network must keep up with the camera, its region must fit into the frame, and it must know the scene.
            figures = camera_figures if check.name == "network" else {}
            kept = {"frames": frames} if check.name in {"camera", "network"} else {}
            findings = check.findings(config=str(file.absolute()), **figures, **kept)
            yield from findings
            camera_figures = findings[-1].figures if check.name == "camera" else camera_figures


def as_json(report: Mapping[str, Sequence[Finding]]) -> str:
    """The report as one JSON object: the worst level, then the findings by section."""
    level = worst_level(finding for findings in report.values() for finding in findings)
    sections = {section: [asdict(finding) for finding in findings] for section, findings in report.items()}
    return json.dumps({"level": level, **sections}, indent=2) + "\n"


def worst_level(findings: Iterable[Finding]) -> Level:
    """The worst level of all findings."""
    return max((finding.level for finding in findings), key=_LEVELS.index, default="ok")


def summary(findings: Iterable[Finding]) -> str:
    """The number of faults and warnings, in words."""
    counts = Counter(finding.level for finding in findings)
    found = [f"{counts[level]} {level}{'s' * (counts[level] > 1)}" for level in ("fault", "warning") if counts[level]]
    return ", ".join(found) or "no problems found"


def lines(finding: Finding, width: int | None) -> Iterator[str]:
    """The lines of a finding in the report, in rich's markup. A width of None never breaks lines, for `grep`."""
    indent = " " * (_LEVEL_WIDTH + _NAME_WIDTH)
    texts = [finding.found, *([f"-> {finding.remedy}"] if finding.level != "ok" else [])]
    wrapped = [line for text in texts for line in _wrapped(text, width and max(width - len(indent), _NARROWEST))]
    colour = _COLOURS[finding.level]
    yield f"[{colour}]{finding.level:<{_LEVEL_WIDTH}}[/]{finding.name:<{_NAME_WIDTH - 1}} {escape(wrapped[0])}"
    for line in wrapped[1:]:
        yield f"{indent}{escape(line)}"


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return text.splitlines()
    return [each for line in text.splitlines() for each in textwrap.wrap(line, width, break_long_words=False)]
