"""The files for systemd: systemd understands them, they confine the agent, and it works confined."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from agent.install.installer import below, unit_warnings
from agent.install.unit_files import UNIT, UNITS, unit_files
from tests.support import cgroups, confined
from tests.support.stations import Agent, broken_parts, closed_port, good_parts, until, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.real_broker import Listener, Mosquitto

PROJECT = Path(__file__).resolve().parents[3]
SYSTEMD = PROJECT / "systemd"
MOST_EXPOSURE = 2.0
MIB, GIB = 2**20, 2**30


def program(name: str) -> str:
    """A program of systemd's; in CI it must be there."""
    return shutil.which(name) or missing(name)


def missing(name: str) -> NoReturn:
    message = f"{name} is not installed: apt-get install systemd"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def call(*command: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - systemd's programs, pip and our own
        list(map(str, command)),
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The shared files, below a root."""
    for file in unit_files():
        place = below(tmp_path / "root", file.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file.content)
    return tmp_path / "root"


def test_systemd_has_nothing_to_say_about_the_units(installed: Path) -> None:
    analyze = program("systemd-analyze")
    folder = below(installed, UNITS)
    units = sorted(folder.iterdir())
    assert [unit.name for unit in units] == [UNIT, "shiftwatch-agents.target"]
    verified = call(analyze, "verify", "--man=no", *units, environment={"SYSTEMD_UNIT_PATH": f"{folder}:"})
    assert (verified.returncode, verified.stderr) == (0, "")


def test_what_systemd_doubts_is_told(installed: Path) -> None:
    program("systemd-analyze")
    unit = below(installed, UNITS / UNIT)
    assert unit_warnings([unit]) == []
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSec=soon"))
    assert any(f"{UNIT}:" in line and "soon" in line for line in unit_warnings([unit]))


def test_the_unit_exposes_little(installed: Path) -> None:
    security = call(program("systemd-analyze"), "security", "--offline=yes", below(installed, UNITS / UNIT))
    overall = re.search(r"Overall exposure level .*: ([0-9.]+)", security.stdout)
    assert overall is not None, security.stderr
    assert float(overall[1]) <= MOST_EXPOSURE


@pytest.fixture
def filtered() -> Path:
    """The unit, on a machine that can filter system calls."""
    program("systemd-analyze")
    if ctypes.util.find_library("seccomp") is None:
        missing(confined.SECCOMP)
    return SYSTEMD / UNIT


def confined_python(unit: Path, *arguments: str) -> list[str]:
    return [sys.executable, confined.__file__, str(unit), sys.executable, *arguments]


def test_what_the_unit_forbids_is_refused(filtered: Path) -> None:
    attempts = """
import mmap, os, socket, sys
for attempt in (
    lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    lambda: os.chown(sys.executable, 0, 0),
    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    lambda: os.chroot("/"),
):
    try:
        attempt()
    except PermissionError:
        print("refused")
print(len(mmap.mmap(-1, 4096)), socket.socket().family.name)
"""
    ended = call(*confined_python(filtered, "-c", attempts))
    assert ended.stdout.splitlines() == ["refused"] * 4 + ["4096 AF_INET"], ended.stderr


@pytest.mark.slow
def test_the_agent_works_under_the_filter_of_its_unit(
    filtered: Path, mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    """ONNX Runtime, OpenCV, SQLite, MQTT, archive, metrics and page; no GPU, no camera that is a device."""
    mosquitto.start()
    listener = listen(mosquitto.port)
    parts = write_pictures(tmp_path / "parts", [*good_parts(5), *broken_parts(2)])
    metrics = {"enabled": True, "port": closed_port()}
    web = {"enabled": True, "port": closed_port()}
    playback = {"playback": "realtime", "frames_per_s": 50, "loop": True}
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=playback, metrics=metrics, web=web)
    command = confined_python(filtered, "-m", "agent")
    with Agent(config, wrapper=f"import os, sys; os.execv({command[0]!r}, {command!r} + sys.argv[1:])") as agent:
        listener.wait_for(lambda heard: len(heard.on("/result")) > 10 and heard.on("/alert"))
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
        page = f"http://127.0.0.1:{web['port']}"
        for name in ("", "/picture"):  # a port in the queue of the kernel: the page's process may still be starting
            with urllib.request.urlopen(page + name, timeout=20) as answer:  # noqa: S310 - our own page
                assert len(answer.read()) > 1000
        agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert {result["resultEvaluation"] for result in listener.on("/result")} == {1, 2}
    assert list((tmp_path / "state" / "archive").glob("*/*.jpg"))
    assert "WARNING" not in agent.log
    assert "ERROR" not in agent.log


@pytest.mark.slow
def test_openvino_works_under_the_filter_once_compiling_is_allowed(
    filtered: Path, bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    code = f"""
import calibration
for name in "auto", "openvino":
    try:
        with calibration.inspector({str(bundle)!r}, backend=name, threads=2) as inspect:
            print(inspect.engine.backend, "|", inspect.reason)
    except calibration.ShiftwatchError as error:
        print(error.remedy)
"""
    forbidden = call(*confined_python(filtered, "-c", code))
    auto, named = forbidden.stdout.splitlines()
    assert auto.startswith("onnxruntime-cpu |"), forbidden.stderr
    assert "OpenVINO compiles the network, which this process may not do" in auto
    assert "MemoryDenyWriteExecute=no" in named
    permissive = tmp_path / UNIT
    permissive.write_text(filtered.read_text().replace("\nMemoryDenyWriteExecute=yes", "\nMemoryDenyWriteExecute=no"))
    allowed = call(*confined_python(permissive, "-c", code))
    assert re.search(r"^openvino-cpu.* \|.*OpenVINO [0-9.]+", allowed.stdout, re.MULTILINE), allowed.stderr


@pytest.fixture
def limits() -> Iterator[cgroups.Group]:
    """The limits of the unit, on a machine that lets this user set them."""
    unit = dict(confined.settings(SYSTEMD / UNIT))
    with ExitStack() as stack:
        try:
            group = stack.enter_context(cgroups.limited(GIB * int(unit["MemoryMax"][:-1]), int(unit["TasksMax"])))
        except OSError as error:
            pytest.skip(f"no limits for memory and tasks here: {error}")
        yield group


@pytest.mark.slow
def test_the_agent_needs_a_fraction_of_the_memory_and_tasks_that_its_unit_allows(
    limits: cgroups.Group, bundle: Path, tmp_path: Path
) -> None:
    unit = dict(confined.settings(SYSTEMD / UNIT))
    parts = write_pictures(tmp_path / "parts", [*good_parts(5), *broken_parts(2)])
    web = {"enabled": True, "port": closed_port()}
    playback = {"playback": "realtime", "frames_per_s": 50, "loop": True}
    config = write_config(tmp_path, bundle, parts, closed_port(), camera=playback, web=web)
    joins = [str(file) for file in limits.joins]
    wrapper = f"""
import os, sys
for file in {joins!r}:
    open(file, "w").write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "agent", *sys.argv[1:]])
"""
    with Agent(config, wrapper=wrapper) as agent:
        for name in ("", "picture"):
            until(lambda: "live page at" in agent.log)
            with urllib.request.urlopen(f"http://127.0.0.1:{web['port']}/{name}", timeout=60) as answer:
                assert answer.read()
        agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert 100 * MIB < int(limits.memory_peak.read_text()) < GIB * int(unit["MemoryMax"][:-1]) / 4
    if limits.tasks_peak.exists():
        assert 5 < int(limits.tasks_peak.read_text()) < int(unit["TasksMax"]) / 4


@pytest.mark.slow
def test_doctor_works_under_the_filter_of_the_unit(filtered: Path, bundle: Path, tmp_path: Path) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    config = write_config(tmp_path, bundle, parts, closed_port())
    ended = call(*confined_python(filtered, "-m", "agent", "doctor", "--config", str(config)))
    faults = [line for line in ended.stdout.splitlines() if line.startswith("fault")]
    assert len(faults) == 1, ended.stdout
    assert "no MQTT broker" in faults[0]


@pytest.mark.slow
def test_a_hang_is_told_with_all_stacks_when_the_watchdog_ends_it(bundle: Path, tmp_path: Path) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    looping = {"playback": "realtime", "frames_per_s": 50, "loop": True}
    with Agent(write_config(tmp_path, bundle, parts, closed_port(), camera=looping)) as agent:
        until(lambda: list((tmp_path / "state").glob("control.sock")) and "watching" in agent.log)
        time.sleep(0.2)  # from that line to the first frame
        agent.end(signal.SIGABRT)  # as WatchdogSec= does
    assert agent.process.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in agent.log
    assert "agent/inspection/loop.py" in agent.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
def test_user_groups_and_rights_are_made(installed: Path) -> None:
    made = call(program("systemd-sysusers"), f"--root={installed}", "shiftwatch.conf")
    assert made.returncode == 0, made.stderr
    users = (installed / "etc/passwd").read_text().splitlines()
    assert [line.split(":")[0] for line in users] == ["shiftwatch"]
    assert users[0].endswith(":Shiftwatch inspection agent:/var/lib/shiftwatch:/usr/sbin/nologin")
    groups = {line.split(":")[0]: line.split(":")[3] for line in (installed / "etc/group").read_text().splitlines()}
    assert groups == {"shiftwatch": "", "video": "shiftwatch", "render": "shiftwatch"}

    station = installed / "etc/shiftwatch/press.yaml"
    station.parent.mkdir()
    station.write_text("bundle: b\n")
    made = call(program("systemd-tmpfiles"), f"--root={installed}", "--create", "shiftwatch.conf")
    assert made.returncode == 0, made.stderr
    own_group = int(next(line.split(":")[3] for line in users))
    assert (station.stat().st_mode & 0o777, station.stat().st_uid, station.stat().st_gid) == (0o640, 0, own_group)
    assert station.parent.stat().st_mode & 0o777 == 0o750


def test_the_rules_for_cameras_are_made_of_what_udev_knows() -> None:
    rules = (SYSTEMD / "70-shiftwatch-cameras.rules").read_text()
    keys = r'(ACTION|SUBSYSTEM|KERNEL|ATTR\{\w+\}|ENV\{\w+\}|GOTO|LABEL|SYMLINK)(==|!=|=|\+=)"[^"]+"'
    lines = [line for line in rules.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 8
    assert all(re.fullmatch(rf"{keys}(, {keys})*", line) for line in lines)
    assert set(re.findall(r'GOTO="(\w+)"', rules)) == set(re.findall(r'LABEL="(\w+)"', rules))
    names = re.findall(r'SYMLINK\+="shiftwatch/(\S+)"', rules)
    assert names == ["serial-$env{ID_SERIAL_SHORT}", "port-$env{ID_PATH}"]


@pytest.mark.slow
def test_a_wheel_has_the_files_and_its_agent_finds_them(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("agent", "calibration", "systemd"):
        shutil.copytree(PROJECT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, clone)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    built = call(*pip, "wheel", clone, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("shiftwatch-*.whl")
    shipped = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/share/shiftwatch/systemd/" in name}
    assert shipped == {path.name for path in SYSTEMD.iterdir()}
    # Into an environment of its own: pip removes what else it finds of a package, also with --prefix.
    environment = tmp_path / "venv"
    venv.create(environment)
    own_python = environment / "bin" / "python"
    put = call(*pip, "--python", own_python, "install", "--no-deps", wheel)
    assert put.returncode == 0, put.stderr
    ask = "from agent.install.unit_files import unit_files; print(unit_files()[0].content)"
    said = call(own_python, "-I", "-c", ask)
    assert f"ExecStart={environment}/bin/shiftwatch-agent run" in said.stdout, said.stderr
