"""What was recorded and what arrived, kept apart from the outbox, and how the two compare."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.real_broker import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from paho.mqtt.client import MQTTMessage
    from typing_extensions import Self

Content: TypeAlias = dict[str, Any]

_RESULTS, _ALERTS = (f"+/+/+/+/+/vision/+/{kind}" for kind in ("result", "alert"))

# For the agent's process: after the outbox has taken a record, its identity is written down, in one write.
NOTED = """
import os
from agent.cli import main
from agent.outbox.outbox import Outbox

ledger = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(ledger, b"session -\\n")
put = Outbox.put

def put_and_note(self, kind, record_id, topic, payload, created_at_ms):
    stored = put(self, kind, record_id, topic, payload, created_at_ms)
    if stored:
        os.write(ledger, f"{{kind}} {{record_id}}\\n".encode())
    return stored

Outbox.put = put_and_note
main()
"""


class Ledger:
    """What the outbox took, in order, session by session; read while agents write it.

    Attributes:
        ids: Identities of results and alerts.
        sessions: The same of results only, by session.
        new_alerts: How many alerts began.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self.wrapper = NOTED.format(path=str(path))
        self.ids: list[str] = []
        self.sessions: list[list[str]] = []
        self.new_alerts = 0
        self._file = path.open()
        self._begun = ""

    @property
    def results(self) -> int:
        return sum(map(len, self.sessions))

    def read(self) -> None:
        """What was written since the last time."""
        *lines, self._begun = (self._begun + self._file.read()).split("\n")
        for kind, identity in (line.split(" ") for line in lines):
            if kind == "session":
                self.sessions.append([])
                continue
            self.ids.append(identity)
            if kind == "result":
                self.sessions[-1].append(identity)
            self.new_alerts += ":new:" in identity

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Arrivals:
    """What a listener gets whose session the broker keeps while one of them is away.

    Attributes:
        heard: Identity and content of everything, in order, repeats included.
        first: Without the repeats, in the order in which each came first.
    """

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, Content]] = []
        self.first: dict[str, Content] = {}
        self._is_subscribed = False
        self._client = Client(CallbackAPIVersion.VERSION2, "books", clean_session=False)
        self._client.reconnect_delay_set(0.1, 0.1)  # type: ignore[arg-type]  # any number will do
        self._client.on_connect = lambda client, *_: client.subscribe([(_RESULTS, 1), (_ALERTS, 1)])
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(lambda: self._is_subscribed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_subscribe(self, *_: object) -> None:
        self._is_subscribed = True

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        content = json.loads(message.payload)
        is_alert = "alertId" in content
        identity = (
            f"{content['alertId']}:{content['type']}:{content['resultId'] or ''}" if is_alert else content["resultId"]
        )
        self.heard.append((identity, content))
        self.first.setdefault(identity, content)


def problems(ledger: Ledger, arrivals: Arrivals, kills: int) -> list[str]:
    """Everything that is not as promised; nothing when all is well.

    Args:
        ledger: What was recorded.
        arrivals: What arrived.
        kills: Of the agent: each may have come after the outbox had a record and before the ledger had.
    """
    first = arrivals.first
    recorded = set(ledger.ids)
    lost = [identity for identity in ledger.ids if identity not in first]
    unknown = [identity for identity in first if identity not in recorded]
    in_order = [identity for identity in first if identity in recorded] == [one for one in ledger.ids if one in first]
    return [
        *([f"{len(lost)} lost, the first {lost[0]}"] if lost else []),
        *([f"{len(unknown)} arrived that nobody recorded, with {kills} kills"] if len(unknown) > kills else []),
        *([] if len(recorded) == len(ledger.ids) else ["an identity was recorded twice"]),
        *([] if in_order else ["they did not arrive in the order in which they were recorded"]),
        *(f"{identity} came with two contents" for identity in _changed(arrivals)),
        *(f"seq does not rise in session {number}" for number in _disordered(ledger, first)),
        *(f"alert {alert} ended {ends} times" for alert, ends in _ends(first).items() if ends != 1),
    ]


def _changed(arrivals: Arrivals) -> set[str]:
    told = ((one, content, arrivals.first[one]) for one, content in arrivals.heard)
    return {one for one, content, first in told if {**content, "historical": 0} != {**first, "historical": 0}}


def _disordered(ledger: Ledger, first: dict[str, Content]) -> list[int]:
    seqs = [[first[one]["seq"] for one in session if one in first] for session in ledger.sessions]
    return [number for number, seq in enumerate(seqs) if seq != sorted(set(seq))]


def _ends(first: dict[str, Content]) -> Counter[str]:
    """How often each alert ended of which somebody heard."""
    alerts = [content for content in first.values() if "alertId" in content]
    ends = Counter({alert["alertId"]: 0 for alert in alerts if alert["type"] == "new"})
    ends.update(alert["alertId"] for alert in alerts if alert["type"] == "end" and alert["alertId"] in ends)
    return ends
