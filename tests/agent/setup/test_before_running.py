"""The command `setup`, and the process that serves its page: how it begins, continues and ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.errors import AgentRunningError, ConfigError, PageError, SetupError
from agent.setup.before_running import new_order, set_up_station
from agent.setup.session import address, set_up, token_in
from agent.state_lock import state_lock
from tests.support.pages import TOKEN, Client
from tests.support.real_broker import free_port, listens
from tests.support.set_up import belt, configure, order_for, put_taught
from tests.support.stations import PATIENCE_S, closed_port, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.setup.order import SetupOrder

# What it begins with


def test_a_new_station_gets_a_token_of_its_own_that_stays(tmp_path: Path) -> None:
    config = tmp_path / "station.yaml"
    order = new_order(config, "127.0.0.1", 8480, None)
    assert re.fullmatch(r"[0-9a-f]{12}", order.token)
    assert (tmp_path / "web-token").read_text() == f"{order.token}\n"
    assert (tmp_path / "web-token").stat().st_mode & 0o777 == 0o600
    assert (order.config, order.token_file, order.first) == (str(config), str(tmp_path / "web-token"), {})
    assert new_order(config, "127.0.0.1", 8480, None).token == order.token


def test_a_station_that_has_a_page_keeps_its_token_and_names(tmp_path: Path) -> None:
    (tmp_path / "own").write_text(f"{TOKEN}\n")
    configure(tmp_path, web={"token_file": "own", "names": ["line-box"]})
    order = new_order(tmp_path / "station.yaml", "0.0.0.0", 8480, None)  # noqa: S104 - not listened on
    assert (order.token, order.token_file) == (TOKEN, str(tmp_path / "own"))
    assert "line-box" in order.names
    assert not (tmp_path / "web-token").exists()


@pytest.mark.parametrize("content", ["", "short", "two words of text", "x" * 300])
def test_a_file_that_holds_no_token_opens_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "web-token").write_text(content)
    with pytest.raises(ConfigError, match="holds no valid token; write 8 or more letters and digits"):
        token_in(tmp_path / "web-token")
    assert (tmp_path / "web-token").read_text() == content


def test_a_configuration_that_is_not_usable_is_no_beginning(tmp_path: Path) -> None:
    (tmp_path / "station.yaml").write_text("bundle: b\ncamera: {source: 0, widht: 640}\n")
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        new_order(tmp_path / "station.yaml", "127.0.0.1", 8480, None)
    assert not (tmp_path / "web-token").exists()


@pytest.mark.parametrize(
    ("given", "source"),
    [("0", 0), ("rtsp://camera/1", "rtsp://camera/1"), ("a ! b", "a ! b"), ("/opt/belt.avi", "/opt/belt.avi")],
)
def test_a_camera_is_what_the_command_names(tmp_path: Path, given: str, source: object) -> None:
    assert new_order(tmp_path / "s.yaml", "127.0.0.1", 8480, given).first == {"camera": {"source": source}}


def test_the_path_of_a_video_starts_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    order = new_order(tmp_path / "etc" / "station.yaml", "127.0.0.1", 8480, "clips/belt.avi")
    assert order.first == {"camera": {"source": str(tmp_path / "clips" / "belt.avi")}}


# The process of its page


class Session:
    """A set-up in a thread of this process."""

    def __init__(self, order: SetupOrder, **more: Any) -> None:  # noqa: ANN401 - further arguments
        self.stop = threading.Event()
        self.is_served = threading.Event()
        self.result: bool | None = None
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(order, more))
        self._thread.start()

    def end(self) -> bool | None:
        """Until it has ended."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.result

    def _run(self, order: SetupOrder, more: dict[str, Any]) -> None:
        try:
            self.result = set_up(order, self.stop, served=lambda _: self.is_served.set(), **more)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.failure = error


@contextmanager
def session(home: Path, first: dict[str, Any] | None = None, **more: Any) -> Iterator[tuple[Session, Client]]:  # noqa: ANN401 - further arguments
    port = free_port()
    running = Session(replace(order_for(home, first), port=port), **more)
    try:
        yield running, Client(port)
    finally:
        running.stop.set()
        running.end()


def state(client: Client) -> dict[str, Any]:
    response = client.ask("/setup", headers={"Authorization": f"Bearer {TOKEN}"})
    content: dict[str, Any] = json.loads(response.read())
    assert response.status == 200, content
    return content


@pytest.mark.slow
def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    with session(tmp_path, belt(tmp_path)) as (running, client):
        until(running.is_served.is_set)
        until(lambda: state(client)["camera"]["isLive"])
        running.stop.set()
        assert running.end() is False
    assert running.failure is None
    assert not listens(client.port)


def test_it_is_over_when_the_caller_says_so(tmp_path: Path) -> None:
    over = threading.Event()
    with session(tmp_path, is_over=over.is_set) as (running, client):
        until(lambda: listens(client.port))
        over.set()
        assert running.end() is True


@pytest.mark.slow
def test_go_ends_it_and_the_station_is_to_start(tmp_path: Path, bundle: Path) -> None:
    configure(tmp_path)
    with session(tmp_path, {**belt(tmp_path), **put_taught(tmp_path, {"": bundle})}) as (running, client):
        until(lambda: listens(client.port))
        status, answer = client.post("/setup/go", {})
        assert status == 200, answer
        assert running.end() is True
        assert (tmp_path / "bundle" / "network.onnx").exists()
    assert running.failure is None


@pytest.mark.slow
def test_what_stands_in_the_way_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "setup").mkdir()
    (tmp_path / "setup" / "draft.yaml").write_text("- 1")
    with session(tmp_path) as (running, _):
        running.end()
    assert isinstance(running.failure, SetupError)
    assert f"cannot read {tmp_path / 'setup' / 'draft.yaml'}" in running.failure.what
    assert running.failure.remedy == "remove it, to begin the set-up again"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with session(tmp_path) as (_, client):
        until(lambda: listens(client.port))
        second = Session(replace(order_for(tmp_path), port=client.port))
        second.end()
        assert isinstance(second.failure, PageError)
        assert f"127.0.0.1:{client.port}" in second.failure.what


def test_a_station_that_runs_is_not_set_up(tmp_path: Path) -> None:
    configure(tmp_path, state_dir="own-state")
    order = order_for(tmp_path)
    with state_lock(tmp_path / "own-state"), pytest.raises(AgentRunningError, match="another agent is running"):
        set_up_station(order, threading.Event(), lambda _: None)


def test_the_token_follows_the_hash_of_the_address(tmp_path: Path) -> None:
    order = order_for(tmp_path)
    assert address(order) == f"http://127.0.0.1:8480/#{TOKEN}"
    assert re.fullmatch(rf"http://[^/:#]+:8480/#{TOKEN}", address(replace(order, host="::")))


# The command


@contextmanager
def command(home: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """``shiftwatch-agent setup`` as a process of its own."""
    with (home / "command.log").open("w") as log:
        words = [sys.executable, "-m", "agent", "setup", "--config", str(home / "station.yaml"), *map(str, arguments)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603 - our own program
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def is_station(port: int) -> bool:
    """Whether the page is that of a station that runs."""
    with suppress(OSError):
        return Client(port).ask("/recalibration").status == 200
    return False


@pytest.mark.slow
def test_the_command_prints_the_address_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    with command(tmp_path, "--port", port) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        token = (tmp_path / "web-token").read_text().strip()
        assert line == f"Open this in a browser: http://127.0.0.1:{port}/#{token}\n"
        until(lambda: listens(port))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    log = (tmp_path / "command.log").read_text()
    assert token not in log
    assert "Traceback" not in log
    assert not (tmp_path / "station.yaml").exists()


@pytest.mark.slow
def test_the_command_runs_the_station_that_was_set_up(tmp_path: Path, bundle: Path) -> None:
    camera = {**belt(tmp_path)["camera"], "loop": True}
    mqtt = {"host": "127.0.0.1", "port": closed_port()}
    draft = {"camera": camera, "mqtt": mqtt, **put_taught(tmp_path, {"": bundle})}
    (tmp_path / "setup" / "draft.yaml").write_text(yaml.safe_dump(draft))
    port = free_port()
    with command(tmp_path, "--port", port) as process:
        until(lambda: listens(port))
        token = (tmp_path / "web-token").read_text().strip()
        assert Client(port).post("/setup/go", {}, token=token)[0] == 200
        until(lambda: is_station(port), timeout_s=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert "stopped: " in (tmp_path / "command.log").read_text()


@pytest.mark.slow
def test_a_page_for_other_machines_comes_with_a_warning(tmp_path: Path) -> None:
    with command(tmp_path, "--port", free_port(), "--host", "0.0.0.0") as process:  # noqa: S104 - for this test
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Open this in a browser: http://")
        assert process.stdout.readline() == "without TLS: pictures and token cross the network readable\n"
