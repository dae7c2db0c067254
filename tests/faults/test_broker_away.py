"""A broker that is away for long: everything comes later, in order, and neither memory nor disk keeps growing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import outage
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.real_broker import PATIENCE_S, Mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.waits

MINUTES = 10 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 2
MOST_GROWTH_MIB = 20.0
NOISE_MIB = 6.0
DELIVERED_WITHIN_S = 120.0


class Comparison:
    """Compares what the broker passes on with what was put, one by one, and keeps none of it."""

    def __init__(self, port: int, minutes: int) -> None:
        self.count = 0
        self.difference: str | None = None
        self.done = threading.Event()
        self._expected = outage.records(minutes)
        self._last = next(self._expected)
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._client.max_inflight_messages = 0
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(outage.TOPICS.result, 1), (outage.TOPICS.alert, 1)]
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if self.done.is_set():
            return
        _, record_id, topic, content, _ = self._last
        heard = (message.topic, json.loads(message.payload))
        if heard != (topic, {**content, "historical": True}):
            self.difference = f"number {self.count}, {record_id}: {heard}"
            self.done.set()
            return
        self.count += 1
        following = next(self._expected, None)
        if following is None:
            self.done.set()
        else:
            self._last = following


@dataclass
class Outage:
    """An agent whose broker is away, and has been for some minutes of its records."""

    process: subprocess.Popen[str]

    def heard(self) -> dict[str, Any]:
        """What the process says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process has died"
        content: dict[str, Any] = json.loads(line)
        return content


@contextmanager
def an_outage(folder: Path, port: int, minutes: int) -> Iterator[Outage]:
    folder.mkdir()
    command = [sys.executable, outage.__file__, str(folder), str(port), str(minutes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own script
        try:
            yield Outage(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def growths_mib() -> dict[int, float]:
    """By minutes of outage; filled by the tests below, in their order."""
    return {}


@pytest.mark.parametrize("minutes", [MINUTES, 2 * MINUTES])
def test_everything_comes_when_the_broker_is_back_and_memory_does_not_grow(
    mosquitto: Mosquitto, tmp_path: Path, minutes: int, growths_mib: dict[int, float]
) -> None:
    total = sum(1 for _ in outage.records(minutes))
    with an_outage(tmp_path / "state", mosquitto.port, minutes) as away:
        away_for_long = away.heard()
        assert away_for_long["depth"] == total
        assert "no MQTT broker" in away_for_long["error"]

        mosquitto.start()
        comparison = Comparison(mosquitto.port, minutes)
        # What is live in the meantime is heard in test_line.py.
        assert comparison.done.wait(DELIVERED_WITHIN_S), f"{comparison.count} of {total}"
        comparison.close()
        assert comparison.difference is None
        assert comparison.count == total

        back = away.heard()
    assert back["published"] == total
    assert back["dropped"] == {}
    growths_mib[minutes] = back["highest_mib"] - away_for_long["before_mib"]
    print(f"{minutes} minutes: {away_for_long} {back}")  # noqa: T201 - figures, with pytest -s
    assert growths_mib[minutes] < MOST_GROWTH_MIB


def test_memory_is_the_same_after_an_outage_twice_as_long(growths_mib: dict[int, float]) -> None:
    if len(growths_mib) < 2:
        pytest.skip("needs the two tests before it")
    assert abs(growths_mib[2 * MINUTES] - growths_mib[MINUTES]) < NOISE_MIB
