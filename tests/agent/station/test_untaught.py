"""A station without a bundle: the line, the broker and a browser know, and it starts when one has come."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.config.model import load
from agent.station.untaught import UntaughtStation, has_bundles
from tests.support.controller import Controller
from tests.support.pages import TOKEN, Client
from tests.support.published import check_published
from tests.support.real_broker import free_port, listens
from tests.support.set_up import put_taught
from tests.support.stations import ROOT, Agent, good_parts, until, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

ENDS_WITHIN_S = 2.0
LOOPING = {"playback": "realtime", "frames_per_s": 50, "loop": True}
DEADLINE_MS = 200
PAGE = {"enabled": True, "names": ["line-box"]}
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def heard(mosquitto: Mosquitto, listen: Callable[[int], Listener]) -> Listener:
    """What a broker that is there from the beginning hears."""
    mosquitto.start()
    return listen(mosquitto.port)


@pytest.fixture
def config(mosquitto: Mosquitto, tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration whose bundle is not there."""
    source = write_pictures(tmp_path / "parts", good_parts(4))

    def write(**more: Any) -> Path:  # noqa: ANN401 - sections
        bundle = more.pop("bundle", tmp_path / "bundle")
        return write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING, decision={}, **more)

    return write


@pytest.fixture
def waiting(config: Callable[..., Path]) -> Iterator[Callable[..., UntaughtStation]]:
    """Makes stations in this process that wait for a bundle."""
    stations: list[UntaughtStation] = []

    def make(**more: Any) -> UntaughtStation:  # noqa: ANN401 - sections
        (config(**more).parent / "state").mkdir()
        station = UntaughtStation(load(config(**more)))
        station.__enter__()
        stations.append(station)
        return station

    yield make
    for station in stations:
        station.__exit__()


def looked_at(station: UntaughtStation, condition: Callable[[], object]) -> None:
    """Until the condition holds, while the station is looked at as `run` does it."""

    def look() -> bool:
        assert not station.look()
        return bool(condition())

    until(look)


@pytest.mark.slow
def test_the_broker_keeps_the_state_for_who_comes_later(
    heard: Listener,
    waiting: Callable[..., UntaughtStation],
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
) -> None:
    station = waiting()
    looked_at(station, lambda: heard.on("/health") and heard.on("/plc"))
    late = listen(mosquitto.port)
    late.wait_for(lambda late: late.on("/status"))
    (status,) = (each for each in late.heard if each.topic == f"{ROOT}/status")
    assert status.retained
    assert (status.content["online"], status.content["state"]) == (True, "not taught")
    assert "shiftwatch-agent setup" in status.content["reason"]
    assert {"status", "info", "alert/state", "health", "plc"} <= check_published(ROOT, heard.heard)


@pytest.mark.slow
def test_a_line_that_does_not_trigger_is_answered_once_a_second_that_there_is_no_verdict(
    heard: Listener, waiting: Callable[..., UntaughtStation]
) -> None:
    station = waiting()
    looked_at(station, lambda: len(heard.on("/plc")) >= 2)
    for answer in heard.on("/plc"):
        assert (answer["valid"], answer["resultCode"], answer["resultEvaluation"]) == (False, 13, 3)
        assert answer["score"] is None
    at_ms = [message.at_ms for message in heard.heard if message.topic.endswith("/plc")]
    assert at_ms[1] - at_ms[0] > 500


def test_each_trigger_is_answered_within_the_deadline_and_nothing_else_is(
    heard: Listener, waiting: Callable[..., UntaughtStation], mosquitto: Mosquitto
) -> None:
    station = waiting(trigger={"source": "command"}, plc={"deadline_ms": DEADLINE_MS})
    looked_at(station, lambda: heard.on("/status"))
    controller = Controller(mosquitto.port)
    try:
        for number in range(3):
            controller.trigger(f"P{number}")
        looked_at(station, lambda: len(heard.on("/plc")) >= 3 and len(heard.on("/cmd/ack")) >= 3)
    finally:
        controller.close()
    answers = [message for message in heard.heard if message.topic.endswith("/plc")]
    assert [answer.content["partId"] for answer in answers] == ["P0", "P1", "P2"]
    for answer in answers:
        assert (answer.content["valid"], answer.content["resultCode"]) == (False, 13)
        assert answer.at_ms - controller.sent_ms[answer.content["partId"]] < DEADLINE_MS
    for ack in heard.on("/cmd/ack"):
        assert not ack["accepted"]
        assert "not taught" in ack["error"]


def test_a_bundle_counts_when_all_of_it_is_there(
    heard: Listener, waiting: Callable[..., UntaughtStation], bundle: Path, tmp_path: Path
) -> None:
    del heard
    left, right = tmp_path / "left", tmp_path / "right"
    station = waiting(bundle={"left": left, "right": right})
    assert not has_bundles(station._config)
    left.mkdir()
    for name in sorted(path.name for path in bundle.iterdir())[:-1]:
        shutil.copy(bundle / name, left)
    station._look_at_s = 0.0
    assert not station.look()
    shutil.copytree(bundle, left, dirs_exist_ok=True)
    station._look_at_s = 0.0
    assert not station.look()
    shutil.copytree(bundle, right)
    station._look_at_s = 0.0
    assert station.look()


def test_a_bundle_that_stays_damaged_is_named_in_the_log(
    heard: Listener,
    waiting: Callable[..., UntaughtStation],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    del heard
    station = waiting()
    (tmp_path / "bundle").mkdir()
    for _ in range(30):
        station._look_at_s = 0.0
        assert not station.look()
    lines = [record.getMessage() for record in caplog.records if "waiting for the rest" in record.getMessage()]
    assert len(lines) == 1
    assert str(tmp_path / "bundle") in lines[0]


@pytest.mark.slow
def test_run_starts_by_itself_when_a_bundle_is_copied_to_its_place(
    heard: Listener, config: Callable[..., Path], bundle: Path, tmp_path: Path
) -> None:
    with Agent(config()) as agent:
        heard.wait_for(lambda heard: heard.on("/status"))
        assert heard.on("/status")[-1]["state"] == "not taught"
        # As a slow copy does it: one file after the other.
        (tmp_path / "bundle").mkdir()
        for path in sorted(bundle.iterdir()):
            shutil.copy(path, tmp_path / "bundle")
            heard.wait_for_more("/plc", len(heard.on("/plc")))
        heard.wait_for(lambda heard: len(heard.on("/result")) > 3)
        assert heard.on("/status")[-1]["state"] == "running"
        agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert "not taught: there is no bundle at" in agent.log
    assert "shiftwatch-agent setup --config" in agent.log
    heard.wait_for(lambda heard: heard.on("/status")[-1]["state"] == "offline")


@pytest.mark.slow
@pytest.mark.parametrize("page", [False, True])
@pytest.mark.alone  # it measures
def test_a_station_that_is_not_taught_ends_at_once_when_it_is_asked_to(
    heard: Listener, config: Callable[..., Path], tmp_path: Path, *, page: bool
) -> None:
    port = free_port()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    web = {"web": {**PAGE, "port": port, "token_file": str(tmp_path / "token")}} if page else {}
    with Agent(config(**web)) as agent:
        heard.wait_for(lambda heard: heard.on("/plc"))
        if page:
            until(lambda: listens(port))
            client = Client(port)
            until(lambda: client.ask("/setup", headers=AUTHORIZED).status == 200)
        took_s = agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert took_s < ENDS_WITHIN_S
    heard.wait_for(lambda heard: heard.on("/status")[-1]["state"] == "offline")
    assert "Traceback" not in agent.log
    if page:
        assert not listens(port)


@pytest.mark.slow
def test_with_a_page_and_a_token_it_is_set_up_in_a_browser_and_runs(
    heard: Listener, config: Callable[..., Path], bundle: Path, tmp_path: Path
) -> None:
    port = free_port()
    token_file = tmp_path / "web-token"  # not there yet
    taught = put_taught(tmp_path, {"": bundle})
    (tmp_path / "setup" / "draft.yaml").write_text(yaml.safe_dump(taught))
    with Agent(config(web={**PAGE, "port": port, "token_file": str(token_file)})) as agent:
        until(lambda: listens(port))
        client, token = Client(port), token_file.read_text().strip()
        assert token_file.stat().st_mode & 0o777 == 0o600
        assert client.ask("/setup", headers={"Host": "line-box"}).status == 401
        assert client.post("/setup/go", {}, token=f"{token}x")[0] == 401
        heard.wait_for_more("/plc", len(heard.on("/plc")))  # the line is answered meanwhile
        assert heard.on("/status")[-1]["state"] == "not taught"
        assert client.post("/setup/go", {}, token=token)[0] == 200
        heard.wait_for(lambda heard: len(heard.on("/result")) > 3, timeout_s=30)
        assert client.ask("/recalibration").status == 200  # the station's own page, at the same address
        agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert token not in agent.log
    assert (tmp_path / "station-before.yaml").exists()
    assert load(tmp_path / "station.yaml").bundle == {"": tmp_path / "bundle"}


@pytest.mark.slow
@pytest.mark.alone  # it measures
def test_a_request_that_waits_for_a_picture_does_not_delay_the_end(config: Callable[..., Path], tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with Agent(config(web={**PAGE, "port": port, "token_file": str(tmp_path / "token")})) as agent:
        until(lambda: listens(port))
        client = Client(port)
        assert client.post("/setup/camera", {"source": "/nowhere.avi"})[0] == 200
        until(lambda: json.loads(client.ask("/setup", headers=AUTHORIZED).read())["camera"]["problem"])
        with socket.create_connection(("127.0.0.1", port)) as waiting:
            request = f"GET /setup/picture HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            waiting.sendall(request.encode())
            assert client.ask("/setup", headers=AUTHORIZED).status == 200  # and so the other is under way
            took_s = agent.end(signal.SIGTERM)
    assert took_s < ENDS_WITHIN_S + 0.5
    assert (agent.process.returncode, "Traceback" in agent.log) == (0, False), agent.log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("obstacle", "says"),
    [
        ("port", "no set-up page: the page cannot be served at"),
        ("token", "holds no valid token; write 8 or more letters and digits"),
        ("folder", "cannot make the folder"),
    ],
)
def test_a_page_that_cannot_be_served_does_not_keep_the_line_without_an_answer(
    heard: Listener, config: Callable[..., Path], tmp_path: Path, obstacle: str, says: str
) -> None:
    (tmp_path / "token").write_text("short\n" if obstacle == "token" else f"{TOKEN}\n")
    if obstacle == "folder":
        (tmp_path / "setup").write_text("a file")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if obstacle == "port" else free_port()
        web = {**PAGE, "port": port, "token_file": str(tmp_path / "token")}
        with Agent(config(web=web)) as agent:
            until(lambda: says in agent.log)
            heard.wait_for_more("/plc", len(heard.on("/plc")) + 1)
            assert heard.on("/status")[-1]["state"] == "not taught"
            assert agent.end(signal.SIGTERM) < ENDS_WITHIN_S + 0.5
    assert agent.process.returncode == 0, agent.log


@pytest.mark.slow
def test_without_a_broker_it_waits_and_starts_all_the_same(
    config: Callable[..., Path], bundle: Path, tmp_path: Path
) -> None:
    with Agent(config()) as agent:
        until(lambda: "not taught" in agent.log)
        shutil.copytree(bundle, tmp_path / "copy")
        (tmp_path / "copy").rename(tmp_path / "bundle")
        until(lambda: "the network runs on" in agent.log)
        agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
