"""The production line's side of the demo: subscribes like a controller, and keeps the results."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.messages.topics import Topics

_CONNECT_TIMEOUT_S = 10.0


class LineListener:
    """Subscribes to all topics of one station, on the broker at this port of 127.0.0.1.

    In its own thread it calls ``on_alert`` with each alert and the result that caused it.

    Attributes:
        results: ``seq`` -> result as JSON.
        offline: Set when the station goes offline.
    """

    def __init__(
        self, port: int, topics: Topics, on_alert: Callable[[dict[str, Any], dict[str, Any] | None], None]
    ) -> None:
        self.results: dict[int, dict[str, Any]] = {}
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
        self._client.on_message = lambda _client, _data, message: self._receive(message)

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

    def _receive(self, message: MQTTMessage) -> None:
        content: dict[str, Any] = json.loads(message.payload)
        if message.topic == self._topics.result:
            self.results[content["seq"]] = self._by_id[content["resultId"]] = content
        elif message.topic == self._topics.alert:
            self._on_alert(content, self._by_id.get(content["resultId"]))
        elif message.topic == self._topics.status:
            if self._online and not content["online"]:
                self.offline.set()
            self._online = content["online"]
