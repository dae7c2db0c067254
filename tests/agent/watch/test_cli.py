"""``shiftwatch-agent watch`` against a real broker: into a pipe, in a terminal, through broken connections."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from agent.backoff import BackoffLimits
from agent.cli import main
from agent.errors import BrokerRefusedError
from agent.messages.records import Evaluation, to_json
from agent.mqtt.connect import BrokerSettings, connect
from agent.mqtt.connection import Acknowledgement, Received
from agent.watch.subscribe import subscribe
from calibration.terminal import ending_signals
from tests.agent.watch.test_board import MALFORMED, result, status
from tests.support.real_broker import PATIENCE_S, Mosquitto, free_port, halt, wait_for
from tests.support.stations import ROOT, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUICK = BackoffLimits(first_retry_s=0.02, longest_retry_s=0.05)
OTHER = "acme/south/paint/line1/cell1/vision/station2"


def publish(port: int, *messages: tuple[str, dict[str, Any] | bytes], retain: bool = False) -> None:
    """Returns when the broker has them."""
    connection = connect(BrokerSettings(host="127.0.0.1", port=port, client_id="stations"), None)
    for topic, content in messages:
        payload = content if isinstance(content, bytes) else to_json(content)
        connection.publish(topic, payload, qos=1, retain=retain)
    wait_for(lambda: (connection.service(0.1), connection.room == connection.receive_maximum)[1])
    connection.close()


class Watching:
    """``shiftwatch-agent watch`` as a process of its own, into a pipe."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._out, self._err = folder / "watch.out", folder / "watch.err"
        command = [sys.executable, "-m", "agent", "watch", *map(str, arguments)]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)  # noqa: S603 - our own program

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        wait_for(lambda: condition() or self.process.poll() is not None, 3 * PATIENCE_S)
        assert condition(), self.out + self.err

    def connected(self) -> None:
        self.wait_for(lambda: "connected to" in self.err)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(*arguments: object) -> Watching:
        started.append(Watching(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait(PATIENCE_S)


@pytest.mark.slow
def test_a_line_is_printed_for_each_result_until_there_were_enough(
    mosquitto: Mosquitto, watch: Callable[..., Watching]
) -> None:
    mosquitto.start()
    publish(mosquitto.port, (f"{ROOT}/status", status()), retain=True)
    watching = watch("--host", "127.0.0.1", "--port", mosquitto.port, "--count", 2)
    watching.connected()
    publish(
        mosquitto.port,
        (f"{ROOT}/result", result(1, Evaluation.NOT_OK)),
        (f"{ROOT}/health", {"fps": 1.0}),
        ("somewhere/else", {"a": 1}),
        *((f"{ROOT}/result", each) for each in MALFORMED),
        (f"{OTHER}/result", result(2)),
        (f"{ROOT}/result", result(3)),
    )
    assert watching.process.wait(PATIENCE_S) == 0
    lines = watching.out.splitlines()
    assert [line.split(" ", 1)[1].split(" part=")[0] for line in lines] == [
        f'{ROOT} status running reason=""',
        f"{ROOT} result NotOK",
        f"{OTHER} result OK",
    ]
    assert f"malformed messages that were left out: {len(MALFORMED)}" in watching.err


@pytest.mark.slow
def test_a_count_of_results_is_not_awaited_from_paused_stations(
    mosquitto: Mosquitto, watch: Callable[..., Watching]
) -> None:
    mosquitto.start()
    publish(mosquitto.port, (f"{ROOT}/status", status("paused", "lens is being cleaned")), retain=True)
    watching = watch("--host", "127.0.0.1", "--port", mosquitto.port, "--count", 2)
    assert watching.process.wait(PATIENCE_S) == 2
    assert "0 of 2 results came; every station is paused" in watching.err


@pytest.mark.slow
def test_only_the_topics_asked_for_are_watched_and_json_has_them_whole(
    mosquitto: Mosquitto, watch: Callable[..., Watching]
) -> None:
    mosquitto.start()
    root = "acme/+/+/line2/+/vision/+"
    watching = watch("--host", "127.0.0.1", "--port", mosquitto.port, "--topic", root, "--json", "--count", 1)
    watching.connected()
    health = {"fps": 2.5, "p99": {"total": 3.0}, "more": ["of it"]}
    publish(mosquitto.port, (f"{OTHER}/result", result(1)), (f"{ROOT}/health", health), (f"{ROOT}/result", result(2)))
    assert watching.process.wait(PATIENCE_S) == 0
    assert [json.loads(line) for line in watching.out.splitlines()] == [
        {"topic": f"{ROOT}/health", "content": health},
        {"topic": f"{ROOT}/result", "content": result(2)},
    ]


@pytest.mark.slow
def test_a_configuration_gives_broker_and_station_and_the_agent_keeps_its_connection(
    mosquitto: Mosquitto, watch: Callable[..., Watching], tmp_path: Path
) -> None:
    mosquitto.start()
    (tmp_path / "password").write_text("secret\n")
    config = write_config(
        tmp_path,
        tmp_path,
        0,
        mosquitto.port,
        mqtt={
            "host": "127.0.0.1",
            "port": mosquitto.port,
            "client_id": "the-agent",
            "username": "u",
            "password_file": "password",
        },
    )
    agent = connect(BrokerSettings(host="127.0.0.1", port=mosquitto.port, client_id="the-agent"), None)
    watching = watch("--config", config, "--count", 1)
    watching.connected()
    publish(mosquitto.port, (f"{OTHER}/result", result(1)), (f"{ROOT}/result", result(2)))
    assert watching.process.wait(PATIENCE_S) == 0
    assert "part=A-2" in watching.out
    agent.service(0.0)
    assert agent.lost is None
    agent.close()
    broker_log = (mosquitto.folder / "mosquitto.log").read_text()
    assert re.search(r"as shiftwatch-watch-[0-9a-f]{8} \(.*u'u'", broker_log)


@pytest.mark.slow
@pytest.mark.parametrize("number", ending_signals())
def test_ctrl_c_ends_it_with_0(mosquitto: Mosquitto, watch: Callable[..., Watching], number: signal.Signals) -> None:
    mosquitto.start()
    watching = watch("--host", "127.0.0.1", "--port", mosquitto.port)
    watching.connected()
    watching.process.send_signal(number)
    assert watching.process.wait(PATIENCE_S) == 0
    assert "Traceback" not in watching.err


@pytest.mark.slow
def test_it_waits_for_a_broker_that_is_not_there_yet_and_for_one_that_went(
    mosquitto: Mosquitto, watch: Callable[..., Watching]
) -> None:
    watching = watch("--host", "127.0.0.1", "--port", mosquitto.port, "--count", 2)
    watching.wait_for(lambda: "not connected: no MQTT broker at 127.0.0.1" in watching.err)
    mosquitto.start()
    watching.connected()
    publish(mosquitto.port, (f"{ROOT}/result", result(1)))
    watching.wait_for(lambda: "part=A-1" in watching.out)
    mosquitto.kill()
    watching.wait_for(lambda: watching.err.count("not connected") == 2)
    mosquitto.start()
    watching.wait_for(lambda: watching.err.count("connected to 127.0.0.1") == 2)
    publish(mosquitto.port, (f"{ROOT}/result", result(2)))
    assert watching.process.wait(PATIENCE_S) == 0


@pytest.mark.slow
@pytest.mark.parametrize("goes_on", [False, True])
def test_it_ends_when_its_output_is_no_longer_read(mosquitto: Mosquitto, tmp_path: Path, *, goes_on: bool) -> None:
    mosquitto.start()
    publish(mosquitto.port, (f"{ROOT}/status", status()), retain=True)
    command = [sys.executable, "-m", "agent", "watch", "--host", "127.0.0.1", "--port", str(mosquitto.port)]
    with (tmp_path / "err").open("wb") as err:
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err)  # noqa: S603 - our own program
    try:
        assert watching.stdout is not None
        assert b"status running" in watching.stdout.readline()
        if goes_on:
            halt(watching)  # so that it hears this before it can see that nobody reads
            publish(mosquitto.port, *((f"{ROOT}/result", result(number)) for number in range(3)))
        watching.stdout.close()
        watching.send_signal(signal.SIGCONT)
        assert watching.wait(3 * PATIENCE_S) == 0
        assert (tmp_path / "err").read_text().splitlines() == [f"connected to 127.0.0.1:{mosquitto.port}"]
    finally:
        watching.kill()
        watching.wait(PATIENCE_S)


# In a terminal


class Screen:
    """``shiftwatch-agent watch`` in a terminal of 80 columns."""

    def __init__(self, *arguments: object) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "agent", "watch", *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm-256color"}
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.drawn = ""

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self._read(), 3 * PATIENCE_S)

    def _read(self) -> str:
        with suppress(BlockingIOError, OSError):  # nothing yet; the other end is closed
            self.drawn += os.read(self._ours, 1 << 16).decode(errors="replace")
        return self.drawn

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._ours)


@pytest.mark.slow
def test_in_a_terminal_there_is_a_page_that_is_drawn_again(mosquitto: Mosquitto) -> None:
    screen = Screen("--host", "127.0.0.1", "--port", mosquitto.port)
    try:
        screen.wait_for("not connected, trying again in")
        mosquitto.start()
        screen.wait_for(f"connected to 127.0.0.1:{mosquitto.port}")
        publish(mosquitto.port, (f"{ROOT}/status", status()), (f"{ROOT}/result", result(1, Evaluation.NOT_OK)))
        screen.wait_for("NotOK")
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(PATIENCE_S) == 0
        screen.wait_for("\x1b[?25h")  # the cursor is back
        assert "\x1b[?1049h" not in screen.drawn  # what was in the terminal is still there
        assert "Traceback" not in screen.drawn
    finally:
        screen.close()


# The connection


class Recorder:
    """Keeps what it receives, until there are ``messages``."""

    def __init__(self, messages: int) -> None:
        self.received: list[Received] = []
        self.ups = 0
        self.downs: list[str] = []
        self._messages = messages

    @property
    def is_done(self) -> bool:
        return len(self.received) >= self._messages

    def connected(self) -> None:
        self.ups += 1

    def disconnected(self, why: str, retry_s: float) -> None:
        assert retry_s > 0
        self.downs.append(why)

    def receive(self, received: Received) -> None:
        self.received.append(received)

    def idle(self) -> None:
        pass


def settings_for(port: int) -> BrokerSettings:
    return BrokerSettings(host="127.0.0.1", port=port, client_id="recorder")


def test_a_broker_that_refuses_the_first_connection_is_an_error(mosquitto: Mosquitto) -> None:
    mosquitto.start(allow_anonymous=False)
    with pytest.raises(BrokerRefusedError):
        subscribe(settings_for(mosquitto.port), "a/#", Recorder(1), QUICK)


def test_a_broker_that_refuses_a_later_connection_is_tried_again(mosquitto: Mosquitto) -> None:
    mosquitto.start()

    class Restarting(Recorder):
        def connected(self) -> None:
            super().connected()
            if self.ups == 1:
                mosquitto.kill()
                mosquitto.start(allow_anonymous=False)
            else:
                publish(mosquitto.port, ("a/b", {}))

        def disconnected(self, why: str, retry_s: float) -> None:
            super().disconnected(why, retry_s)
            if "refuses the client" in why and sum("refuses the client" in each for each in self.downs) == 3:
                mosquitto.kill()
                mosquitto.start()

    recorder = Restarting(1)
    subscribe(settings_for(mosquitto.port), "a/#", recorder, QUICK)
    assert recorder.received == [Received("a/b", b"{}", retained=False)]
    assert recorder.ups == 2


class ForbiddingConnection:
    """A connection to a broker that refuses the subscription; mosquitto accepts it and then sends nothing."""

    lost: str | None = None
    is_closed = False

    def subscribe(self, topic: str, qos: int) -> int:
        assert (topic, qos) == ("a/#", 1)
        return 7

    def service(self, _timeout_s: float) -> list[Acknowledgement]:
        return [Acknowledgement(7, "Not authorized")]

    def close(self) -> None:
        self.is_closed = True


def test_a_topic_that_the_broker_forbids_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = ForbiddingConnection()
    monkeypatch.setattr("agent.watch.subscribe.connect", lambda *_: connection)
    with pytest.raises(BrokerRefusedError, match="refuses the subscription to a/#: Not authorized"):
        subscribe(settings_for(1883), "a/#", Recorder(1), QUICK)
    assert connection.is_closed


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "station.yaml", "--host", "broker"], "give one of them"),
        (["--config", "station.yaml", "--tls"], "give one of them"),
        (["--password-file", "password"], "--password-file without --username"),
        (["--ca-file", "ca.pem"], "--ca-file without --tls"),
        (["--topic", "acme//x"], "is not a topic root"),
        (["--topic", "acme/a+"], "is not a topic root"),
        (["--topic", "#"], "is not a topic root"),
        (["--username", "u", "--password-file", "missing"], "--password-file: cannot read missing"),
        (["--host", "127.0.0.1", "--tls", "--ca-file", "missing.pem"], "cannot use the TLS files missing.pem"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "watch", "--port", str(free_port()), *arguments])
    if "--config" in arguments:
        monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "watch", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert ended.value.code == 2
    assert message in capfd.readouterr().err
