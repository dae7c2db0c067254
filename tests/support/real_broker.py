"""A real broker on a free port of this machine, and a listener that hears all of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PATIENCE_S = 30.0
"""Only what hangs takes longer, on a machine with whatever else to do."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def halt(process: subprocess.Popen[Any]) -> None:
    """Stop a process, and return once all of its threads stand still: until then some may read what is sent to it."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def wait_for(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return when the condition holds; fail after the time-out."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


def listens(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def server_that_says(answer: bytes, *, hang_up: bool = False) -> Iterator[int]:
    """A TCP server that answers a CONNECT with these bytes, and then says nothing more or ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            line, _ = server.accept()
            with line:
                line.recv(4096)
                line.sendall(answer)
                done.wait(0 if hang_up else 10)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join(10)


def mosquitto_binary() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """The real broker; started and stopped at will, always on the same port."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self._binary = binary
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *lines: str, listener: Sequence[str] = (), allow_anonymous: bool = True) -> None:
        """Start with more lines of configuration, and return when it listens."""
        user = ["user root"] if os.geteuid() == 0 else []
        anonymous = f"allow_anonymous {str(allow_anonymous).lower()}"
        config = self.folder / "mosquitto.conf"
        # The listener of a test must not be the one that loses messages.
        config.write_text(
            "\n".join(
                [
                    *user,
                    "max_queued_messages 1000000",
                    *lines,
                    f"listener {self.port} 127.0.0.1",
                    anonymous,
                    *listener,
                    "",
                ]
            )
        )
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([self._binary, "-v", "-c", str(config)], stdout=log, stderr=log)  # noqa: S603 - the binary was found on the path
        wait_for(self._listens)

    def kill(self) -> None:
        """End it without a word to its clients."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
            self.process = None

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
        return listens(self.port)


@contextmanager
def broker_in(folder: Path) -> Iterator[Mosquitto]:
    """A broker that is not started yet, where one is installed; in CI one must be."""
    binary = mosquitto_binary()
    if binary is None:
        message = "mosquitto is not installed: apt-get install mosquitto"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder.mkdir()
    broker = Mosquitto(binary, folder)
    yield broker
    broker.stop()


@dataclass(frozen=True)
class Heard:
    topic: str
    retained: bool
    content: dict[str, Any]
    at_ms: float = 0.0


class Listener:
    """Hears everything below ``#``, in order."""

    def __init__(self, port: int) -> None:
        self.heard: list[Heard] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._client.max_inflight_messages = 0
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def on(self, topic: str) -> list[dict[str, Any]]:
        """What was heard on topics that end so."""
        return [message.content for message in self.heard if message.topic.endswith(topic)]

    def wait_for(self, condition: Callable[[Listener], object], timeout_s: float = PATIENCE_S) -> None:
        wait_for(lambda: condition(self), timeout_s)

    def wait_for_more(self, topic: str, than: int) -> None:
        """Until more messages were heard on such topics."""
        wait_for(lambda: len(self.on(topic)) > than)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.heard.append(
            Heard(message.topic, message.retain, json.loads(message.payload or b"{}"), time.time() * 1000)
        )
