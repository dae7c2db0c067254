"""``shiftwatch-agent doctor`` as a user meets it, and ``run`` with a backend that is not there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from agent.doctor import camera_probe, network_probe, report, station_probes
from agent.doctor.finding import Finding, ok
from agent.state_lock import state_lock
from calibration.deployment.backends import BackendChoice
from calibration.errors import ScoreMismatchError
from tests.support.stations import Agent, closed_port, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

DEVICE = ["shiftwatch", "Python", "OpenCV", "ONNX Runtime", "OpenVINO", "NVIDIA GPU", "TensorRT", "backend"]
STATION = [
    "configuration",
    "disk",
    "agent",
    "secrets",
    "camera",
    "broker",
    "bundle",
    "network",
    "golden frames",
    "live frames",
    "speed",
    "deadline",
]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def station(self) -> dict[str, dict[str, Any]]:
        """What ``--json`` says of the station, by name."""
        return {finding["name"]: finding for finding in json.loads(self.out)["station"]}


def agent(*arguments: object, **environment: str) -> Outcome:
    """The command as a process of its own."""
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "agent", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.slow
def test_without_a_station_each_finding_about_the_device_is_one_line() -> None:
    outcome = agent("doctor")
    title, *lines, summary = outcome.out.splitlines()
    assert title == "This device"
    found = [line.split(maxsplit=1) for line in lines if not line.startswith(" ")]
    assert {level for level, _ in found} <= {"ok", "warning", "fault"}
    assert [text[: len(name)] for name, (_, text) in zip(DEVICE, found, strict=False)] == DEVICE
    faults = [text for level, text in found if level == "fault"]
    assert (outcome.code, "fault" in summary) == ((2, True) if faults else (0, False))
    assert outcome.err == ""


@pytest.mark.slow
def test_a_healthy_station_has_no_fault_and_is_left_unchanged(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    source = write_pictures(tmp_path / "parts", good_parts(3))
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera={"playback": "realtime", "frames_per_s": 5})
    before = sorted(tmp_path.rglob("*"))
    outcome = agent("doctor", "--config", config, "--json")
    found = outcome.station()
    assert list(found) == STATION
    assert {finding["level"] for finding in found.values()} == {"ok"}, outcome.out
    assert outcome.code == 0
    assert found["camera"]["figures"] == {"width": 96.0, "height": 72.0, "frames_per_s": 5.0}
    assert "as 'shiftwatch-doctor-" in found["broker"]["found"]
    assert "none is running" in found["agent"]["found"]
    assert "mean_shift on filterbank, 30 images" in found["bundle"]["found"]
    assert found["golden frames"]["figures"]["deviation"] < 1e-3
    assert found["live frames"]["found"].startswith("3 of 3 look as taught; score ")
    assert 0 < found["speed"]["figures"]["p50_ms"] <= found["speed"]["figures"]["p99_ms"]
    assert "the camera delivers one every 200.0 ms" in found["speed"]["found"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_running_agent_is_detected_and_not_disturbed(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(5))
    looping = {"playback": "realtime", "frames_per_s": 20, "loop": True}
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera=looping)
    with Agent(config) as running:
        listener.wait_for(lambda listener: listener.on("/result"))
        found = agent("doctor", "--config", config, "--json").station()
        assert running.process.poll() is None, running.log
        heard = len(listener.on("/result"))
        listener.wait_for(lambda listener: len(listener.on("/result")) > heard)
        assert all(status["online"] for status in listener.on("/status"))
        running.end(signal.SIGTERM)
    assert running.log.count("connected to") == 1, "its line was never broken"
    assert "running on" in found["agent"]["found"]
    assert found["broker"]["level"] == "ok"
    assert "not measured" in found["speed"]["found"]


def test_a_live_camera_used_by_a_running_agent_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, bundle, f"rtsp://user:secret@127.0.0.1:{closed_port()}/line", closed_port())
    with state_lock(tmp_path / "state"):
        (watched,) = camera_probe.camera(str(config))
    assert watched.level == "ok"
    assert "not opened, because the running agent uses it" in watched.found
    (free,) = camera_probe.camera(str(config))
    assert free.level == "fault"
    assert "secret" not in watched.found + free.found


def test_frames_of_a_camera_that_the_agent_uses_are_not_compared(bundle: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, bundle, f"rtsp://127.0.0.1:{closed_port()}/line", closed_port())
    with state_lock(tmp_path / "state"):
        (outcome,) = (each for each in network_probe.network(str(config), frames=str(tmp_path)) if "live" in each.name)
    assert (outcome.level, outcome.found.partition(",")[0]) == ("ok", "not compared with the taught images")


def test_frames_that_the_camera_gives_now_are_compared_with_the_taught_ones(bundle: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "parts", [255 - frame for frame in good_parts(30)])
    config = str(write_config(tmp_path, bundle, source, closed_port(), camera={"frames_per_s": 100}))
    kept = tmp_path / "kept"
    kept.mkdir()
    (outcome,) = camera_probe.camera(config, str(kept))
    assert (outcome.level, len(list(kept.iterdir()))) == ("ok", 8)
    (outcome,) = (each for each in network_probe.network(config, frames=str(kept)) if each.name == "live frames")
    assert outcome.level == "fault"
    assert outcome.found.startswith("0 of 8 look as taught; ")
    assert "taught from other pictures than this camera gives: the frame is " in outcome.found


@pytest.mark.slow
def test_everything_that_is_wrong_with_a_station_is_a_fault_with_its_remedy(bundle: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    (damaged / "network.onnx").write_bytes(b"other")
    outcome = agent("doctor", "--config", write_config(tmp_path, damaged, "nowhere.avi", closed_port()), "--json")
    found = outcome.station()
    assert outcome.code == 2
    assert json.loads(outcome.out)["level"] == "fault"
    for name, reason in {"camera": "no video or image folder", "broker": "refused", "bundle": "network.onnx"}.items():
        assert found[name]["level"] == "fault"
        assert reason in found[name]["found"]
        assert found[name]["remedy"]


def test_a_broker_that_refuses_the_connection_is_a_fault_with_its_reason(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start(allow_anonymous=False)
    (finding,) = station_probes.broker(str(write_config(tmp_path, bundle, tmp_path, mosquitto.port)))
    assert finding.level == "fault"
    assert "Not authorized" in finding.found


@pytest.mark.parametrize(("limit", "levels"), [(600, ["ok", "warning"]), (100_000, ["ok"])])
def test_a_broker_that_takes_small_packets_only_is_a_warning_with_its_limit(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path, limit: int, levels: list[str]
) -> None:
    mosquitto.start(f"max_packet_size {limit}")
    findings = list(station_probes.broker(str(write_config(tmp_path, bundle, tmp_path, mosquitto.port))))
    assert [finding.level for finding in findings] == levels
    assert f"{limit} bytes at most" in findings[-1].found or levels == ["ok"]


def test_a_password_file_that_is_missing_is_a_fault_of_the_broker(bundle: Path, tmp_path: Path) -> None:
    mqtt = {"username": "station", "password_file": "secret.txt"}
    (finding,) = station_probes.broker(str(write_config(tmp_path, bundle, tmp_path, closed_port(), mqtt=mqtt)))
    assert finding.level == "fault"
    assert "mqtt.password_file: cannot read" in finding.found


def test_frames_that_do_not_fit_the_bundle_are_a_fault(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_probe, "_MEASURING_S", 0.0)
    config = str(write_config(tmp_path, bundle, tmp_path, closed_port()))
    misfit = {finding.name: finding for finding in network_probe.network(config, width=50.0, height=50.0)}
    assert misfit["region"].level == "fault"
    assert "does not fit into a frame of 50x50" in misfit["region"].found
    assert {finding.level for finding in network_probe.network(config, width=96.0, height=72.0)} == {"ok"}


def test_the_page_is_checked_if_it_is_enabled(bundle: Path, tmp_path: Path) -> None:
    def said(**web: object) -> list[str]:
        config = write_config(tmp_path, bundle, tmp_path, 1, web=web)
        found = [each for each in station_probes.records(str(config)) if each.name == "page"]
        return [f"{each.level} {each.found}" for each in found]

    port = closed_port()
    assert said() == []
    assert said(enabled=True, port=port) == [f"ok http://127.0.0.1:{port}/, read-only"]
    with socket.create_server(("127.0.0.1", port)):
        assert "in use" in said(enabled=True, port=port)[0]


def test_golden_frames_with_other_scores_are_a_fault(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(*_: object) -> None:
        raise ScoreMismatchError(what="golden frame 0 scores 1, not 2", remedy="do not inspect with it")

    monkeypatch.setattr(network_probe, "check_golden", differ)
    *_, finding, _ = network_probe.network(str(write_config(tmp_path, bundle, tmp_path, closed_port())))
    assert finding == Finding("network", "fault", "golden frame 0 scores 1, not 2", "do not inspect with it")


@pytest.mark.slow
def test_a_configuration_that_is_not_usable_is_a_fault_with_all_its_problems(tmp_path: Path) -> None:
    config = tmp_path / "station.yaml"
    config.write_text("bundle: b\ncamera: {source: 0, playback: slow}\nmqtt: {port: 0}\n")
    outcome = agent("doctor", "--config", config)
    assert outcome.code == 2
    assert "camera.playback: 'slow' is not allowed" in outcome.out
    assert "mqtt.port: 0 is not allowed" in outcome.out
    assert "Traceback" not in outcome.out + outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx", "cuda"])
def test_a_named_backend_without_a_gpu_ends_run_with_one_clear_line(
    bundle: Path, tmp_path: Path, bare: Mapping[str, str], backend: str
) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(1))
    config = write_config(tmp_path, bundle, source, closed_port(), engine={"backend": backend})
    ran, bare_ran = (agent("run", "--config", config, CUDA_VISIBLE_DEVICES="", **packages) for packages in ({}, bare))
    assert ran == bare_ran, "the driver is missed first, whatever is installed"
    assert ran.code == 2
    error, remedy = ran.err.splitlines()
    assert error.startswith(f"error: the backend {backend} cannot run here: ")
    assert "CUDA driver" in error
    assert "engine.backend: auto" in remedy
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
def test_a_named_backend_without_a_gpu_is_a_fault_for_the_doctor(bundle: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(1))
    config = write_config(tmp_path, bundle, source, closed_port(), engine={"backend": "tensorrt"})
    outcome = agent("doctor", "--config", config, "--json", CUDA_VISIBLE_DEVICES="")
    assert outcome.code == 2
    network = outcome.station()["network"]
    assert network["level"] == "fault"
    assert network["found"].startswith("the backend tensorrt cannot run here: ")


@pytest.fixture
def bare(tmp_path: Path) -> Mapping[str, str]:
    """Environment in which the packages for GPUs and OpenVINO are not installed."""
    folder = tmp_path / "bare"
    folder.mkdir()
    absent = ("pycuda", "cuda.bindings", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "openvino")
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "auto"])
@pytest.mark.parametrize("installed", [True, False])
def test_a_station_without_a_gpu_runs_on_its_processor_and_says_why(
    bundle: Path, tmp_path: Path, bare: Mapping[str, str], backend: str, *, installed: bool
) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(1))
    config = write_config(tmp_path, bundle, source, closed_port(), engine={"backend": backend, "threads": 1})
    ran = agent("run", "--config", config, CUDA_VISIBLE_DEVICES="", **({} if installed else bare))
    has_openvino = installed and find_spec("openvino") is not None
    if backend == "openvino" and not has_openvino:
        assert ran.code == 2
        error, _ = ran.err.splitlines()
        assert error == "error: the backend openvino cannot run here: OpenVINO is not installed"
        return
    assert ran.code == 0
    (line,) = (line for line in ran.err.splitlines() if "the network runs on" in line)
    assert ("CUDA driver" in line) == (backend == "auto")
    assert ("OpenVINO is not installed" in line) == (backend == "auto" and not has_openvino)
    assert "1 result (1 OK" in ran.err


def test_the_doctor_does_not_build_a_tensorrt_engine(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_probe, "choose_backend", lambda _: BackendChoice({"tensorrt": None}, named=True))
    config = write_config(tmp_path, bundle, tmp_path, closed_port())
    whole, network, _ = network_probe.network(str(config))
    assert (whole.name, network.level) == ("bundle", "warning")
    assert "has built no engine for it yet" in network.found
    assert not (tmp_path / "state").exists()


LONG = Finding("clock", "warning", "not [b]synchronised[/b] for a long time", "set it with a program that does so")


def test_lines_are_broken_at_the_width_of_the_terminal_and_never_in_a_pipe() -> None:
    assert list(report.lines(LONG, None)) == [
        "[yellow]warning  [/]clock          not \\[b]synchronised\\[/b] for a long time",
        "                        -> set it with a program that does so",
    ]
    narrow = list(report.lines(LONG, 50))
    assert len(narrow) == 4
    assert all(line.startswith(" " * 24) for line in narrow[1:])
    path = ok("disk", f"5 GiB free in {'/long' * 20}")
    assert f"{'/long' * 20}" in "\n".join(report.lines(path, 50)), "a path can be copied"


def test_what_is_well_has_no_remedy_and_the_worst_level_counts() -> None:
    assert list(report.lines(ok("disk", "5 GiB free"), None)) == ["[green]ok       [/]disk           5 GiB free"]
    assert report.worst_level([]) == "ok"
    assert report.worst_level([ok("a", ""), LONG]) == "warning"
    assert report.worst_level([Finding("b", "fault", ""), LONG]) == "fault"
    assert report.summary([LONG, LONG, Finding("b", "fault", "")]) == "1 fault, 2 warnings"
    assert report.summary([ok("a", "")]) == "no problems found"
