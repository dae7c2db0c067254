"""The controller of a line: triggers parts over MQTT."""

from __future__ import annotations

import json
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.stations import PATIENCE_S, ROOT


class Controller:
    """Triggers parts.

    Attributes:
        sent_ms: When, by part.
    """

    def __init__(self, port: int) -> None:
        self.sent_ms: dict[str, float] = {}
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def trigger(self, part_id: str) -> None:
        self.sent_ms[part_id] = time.time() * 1000
        text = json.dumps({"commandId": part_id, "args": {"partId": part_id}})
        self._client.publish(f"{ROOT}/cmd/trigger", text, qos=1).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
