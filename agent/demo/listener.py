"""The line's side of the demo: subscribes as a controller would, and keeps what arrives."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.messages.topics import Topics

_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ReceivedMessages:
    """An alert as the line heard it, with the result that caused it."""

    alert: dict[str, Any]
    result: dict[str, Any] | None


class LineListener:
    """A subscriber to everything that one station says.

    Args:
        port: Of the broker on 127.0.0.1.
        topics: Of the station.
        on_alert: Called for each alert, on the subscriber's thread.

    Attributes:
        results: By ``seq``, as JSON.
        health: The last message of ``health``.
    """

    def __init__(self, port: int, topics: Topics, on_alert: Callable[[ReceivedMessages], None]) -> None:
        self.results: dict[int, dict[str, Any]] = {}
        self.alerts: list[dict[str, Any]] = []
        self.health: dict[str, Any] = {}
        self.messages = 0
        self.offline = threading.Event()
        self._by_id: dict[str, dict[str, Any]] = {}
        self._online = False
        self._topics = topics
        self._on_alert = on_alert
        self._port = port
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, "line-controller", protocol=MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{topics.root}/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._take(message)

    def __enter__(self) -> Self:
        """Connect and subscribe."""
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        self._subscribed.wait(_CONNECT_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, message: MQTTMessage) -> None:
        self.messages += 1
        content: dict[str, Any] = json.loads(message.payload)
        if message.topic == self._topics.result:
            self.results[content["seq"]] = self._by_id[content["resultId"]] = content
        elif message.topic == self._topics.alert:
            self.alerts.append(content)
            self._on_alert(ReceivedMessages(content, self._by_id.get(content["resultId"])))
        elif message.topic == self._topics.health:
            self.health = content
        elif message.topic == self._topics.status:
            self._note_status(online=content["online"])

    def _note_status(self, *, online: bool) -> None:
        if self._online and not online:
            self.offline.set()
        self._online = online
