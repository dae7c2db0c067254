"""What systemd hears, over a real socket."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.inspection.score import score_frame
from agent.station.systemd import ServiceManager
from tests.support.running import Running
from tests.support.stations import PATIENCE_S, broken_parts, closed_port, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.waits

LOOPING = {"playback": "realtime", "frames_per_s": 100, "loop": True}


class Systemd:
    """The other end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self, timeout_s: float = PATIENCE_S) -> dict[str, str]:
        self._socket.settimeout(timeout_s)
        text = self._socket.recv(65536).decode()
        self.heard.append(dict(line.partition("=")[::2] for line in text.splitlines()))
        return self.heard[-1]

    def hear_all(self) -> list[dict[str, str]]:
        """What has come so far."""
        heard = []
        try:
            while True:
                heard.append(self.hear(1e-6))
        except (TimeoutError, BlockingIOError):
            return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    at = str(tmp_path / "notify") if request.param == "path" else f"@shiftwatch-test-{os.getpid()}"
    manager = Systemd(at)
    yield manager
    manager.close()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def service_manager(systemd: Systemd, clock: Callable[[], float], **environment: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": systemd.address, **environment}, clock)


def status() -> str:
    return "running\nREADY=0"


def test_the_first_progress_is_readiness_and_each_later_one_feeds_the_watchdog_four_times_in_its_patience(
    systemd: Systemd,
) -> None:
    clock = Clock()
    manager = service_manager(systemd, clock, WATCHDOG_USEC="8000000", WATCHDOG_PID=str(os.getpid()))
    assert systemd.hear_all() == []
    manager.progress(status)
    assert systemd.hear_all() == [{"READY": "1", "STATUS": "running READY=0", "WATCHDOG": "1"}]
    for _ in range(19):  # 1.9 s
        clock.now_s += 0.1
        manager.progress(status)
    assert systemd.hear_all() == []
    clock.now_s += 0.11
    manager.progress(status)
    assert systemd.hear_all() == [{"STATUS": "running READY=0", "WATCHDOG": "1"}]
    manager.stopping()
    assert systemd.hear_all() == [{"STOPPING": "1"}]


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "no"}])
def test_without_a_watchdog_of_its_own_the_state_is_reported_every_ten_seconds(
    systemd: Systemd, watchdog: dict[str, str]
) -> None:
    clock = Clock()
    manager = service_manager(systemd, clock, **watchdog)
    for _ in range(20):
        manager.progress(status)
        clock.now_s += 1
    assert len(systemd.hear_all()) == 2


def test_progress_without_a_status_feeds_the_watchdog_and_leaves_the_status_as_it_is(systemd: Systemd) -> None:
    clock = Clock()
    manager = service_manager(systemd, clock)
    manager.progress()
    clock.now_s += 11
    manager.progress()
    assert systemd.hear_all() == [{"READY": "1", "WATCHDOG": "1"}, {"WATCHDOG": "1"}]


def test_what_a_reason_contains_neither_steers_a_terminal_nor_stops_the_loop(systemd: Systemd) -> None:
    service_manager(systemd, Clock()).progress(lambda: "paused by \x1b[2J\udcff\u202e")
    assert systemd.hear()["STATUS"] == r"paused by \x1b[2J\udcff\u202e"


def test_without_a_service_manager_nothing_is_said() -> None:
    def fail() -> str:
        raise AssertionError

    manager = ServiceManager({})
    manager.progress(fail)
    manager.stopping()


def test_a_service_manager_that_does_not_listen_stops_nothing_and_gets_readiness_later(
    systemd: Systemd, caplog: pytest.LogCaptureFixture
) -> None:
    manager = service_manager(systemd, Clock())
    systemd.close()
    if not systemd.address.startswith("@"):
        os.unlink(systemd.address)  # noqa: PTH108 - a socket
    for _ in range(3):
        manager.progress(status)
    assert len(caplog.records) == 1, "logged once"
    again = Systemd(systemd.address)
    manager.progress(status)
    assert again.hear()["READY"] == "1"
    again.close()


def test_a_queue_that_is_full_makes_nobody_wait(systemd: Systemd) -> None:
    clock = Clock()
    manager = service_manager(systemd, clock)
    for _ in range(2000):  # the kernel queues some hundreds at most
        clock.now_s += 11
        manager.progress(status)
    assert 0 < len(systemd.hear_all()) < 2000


def test_a_station_reports_that_it_watches_that_it_continues_and_that_it_stops(
    systemd: Systemd, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    parts = write_pictures(tmp_path / "parts", [*good_parts(3), *broken_parts(1)])
    station = Running(write_config(tmp_path, bundle, parts, closed_port(), camera=LOOPING))
    first = systemd.hear()
    assert (first["READY"], first["WATCHDOG"]) == ("1", "1")
    names = {thread.name for thread in threading.enumerate()}
    assert {"publisher", "control", "capture"} <= names
    for _ in range(5):
        later = systemd.hear()
        assert later.keys() == {"STATUS", "WATCHDOG"}
    assert later["STATUS"].startswith("running; ")
    assert "frames captured" in later["STATUS"]
    assert "waiting" in later["STATUS"]
    station.end()
    systemd.hear_all()
    assert systemd.heard[-1] == {"STOPPING": "1"}
    assert [message for message in systemd.heard if "READY" in message] == [first]


@pytest.mark.slow
def test_an_engine_that_hangs_starves_the_watchdog(
    systemd: Systemd, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, hanging, go_on = threading.Event(), threading.Event(), threading.Event()

    def look_or_hang(*arguments: Any) -> Any:  # noqa: ANN401 - as look
        if hang.is_set():
            hanging.set()
            go_on.wait(PATIENCE_S)
        return score_frame(*arguments)

    monkeypatch.setattr("agent.inspection.loop.score_frame", look_or_hang)
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    parts = write_pictures(tmp_path / "parts", good_parts(4))
    station = Running(write_config(tmp_path, bundle, parts, closed_port(), camera=LOOPING))
    assert systemd.hear()["READY"] == "1"
    hang.set()
    assert hanging.wait(PATIENCE_S)
    systemd.hear_all()
    with pytest.raises(TimeoutError):
        systemd.hear(1.0)  # five times the watchdog's patience, however slow the machine is
    hang.clear()
    go_on.set()
    assert systemd.hear()["WATCHDOG"] == "1"
    station.end()


@pytest.mark.slow
def test_a_camera_that_gives_nothing_starves_nobody(
    systemd: Systemd, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    slow = {**LOOPING, "frames_per_s": 0.02}  # the second frame comes after the test
    station = Running(write_config(tmp_path, bundle, parts, closed_port(), camera=slow))
    for _ in range(4):
        assert systemd.hear()["WATCHDOG"] == "1"
    assert station.end().captured == 1
