"""What hosts know of an edge node over one connection: its births, data and deaths, numbered without a gap."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.sparkplug.payload import DataType, Metric, Value, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.messages.topics import SparkplugTopics, Verb
    from agent.mqtt.connection import Connection

log = logging.getLogger(__name__)

REBIRTH = "Node Control/Rebirth"
_SEQ_COUNT = 256


def death_payload(birth_number: int) -> bytes:
    """Content of an NDEATH, as will and as a goodbye: which birth it ends."""
    timestamp_ms = now_ms()
    return encode([_bd_seq(birth_number, timestamp_ms)], timestamp_ms, None, with_types=True)


class Session:
    """One edge node and its one device, over one connection.

    Args:
        connection: Its will is the NDEATH with the same ``birth_number``.
        topics: Of the edge node.
        birth_number: ``bdSeq``.

    Attributes:
        is_born: The births have been sent; without them nothing else may be.
        birth_is_due: Births must be the next that is said.
    """

    def __init__(self, connection: Connection, topics: SparkplugTopics, birth_number: int) -> None:
        self.is_born = False
        self.birth_is_due = True
        self._connection = connection
        self._topics = topics
        self._birth_number = birth_number
        self._seq = 0
        self._told: dict[str, Value] = {}

    def be_born(self, node: Sequence[Metric], device: Sequence[Metric]) -> None:
        """NBIRTH and DBIRTH, with every metric that will ever be sent; the numbers begin anew."""
        timestamp_ms = now_ms()
        control = Metric(name=REBIRTH, type=DataType.BOOLEAN, value=False, timestamp_ms=timestamp_ms)
        self._seq = 0
        self._publish_node("BIRTH", [_bd_seq(self._birth_number, timestamp_ms), control, *node])
        # In the order of their times, as the specification wants values that are not historical.
        self._publish_device("BIRTH", sorted(device, key=lambda metric: metric.timestamp_ms))
        self._told = {metric.name: metric.value for metric in node}
        self.is_born, self.birth_is_due = True, False

    def tell_node(self, metrics: Sequence[Metric]) -> None:
        """NDATA with what has changed; nothing if nothing has."""
        changed = [metric for metric in metrics if metric.value != self._told.get(metric.name)]
        if changed:
            self._publish_node("DATA", changed)
            self._told.update((metric.name, metric.value) for metric in changed)

    def tell_device(self, metrics: Sequence[Metric]) -> None:
        """DDATA with all of these, changed or not: one that is lost then takes nothing of another with it."""
        self._publish_device("DATA", metrics)

    def die(self) -> int:
        """DDEATH and NDEATH; the number of the last comes back when the broker has it."""
        if self.is_born:
            self._publish_device("DEATH", [])
        death = death_payload(self._birth_number)
        return self._connection.publish(self._topics.node("DEATH"), death, qos=1, retain=False)

    def _publish_node(self, verb: Verb, metrics: Sequence[Metric]) -> None:
        self._publish(self._topics.node(verb), metrics, with_types=verb == "BIRTH")

    def _publish_device(self, verb: Verb, metrics: Sequence[Metric]) -> None:
        self._publish(self._topics.device(verb), metrics, with_types=verb == "BIRTH")

    def _publish(self, topic: str, metrics: Sequence[Metric], *, with_types: bool) -> None:
        payload = encode(metrics, now_ms(), self._seq, with_types=with_types)
        self._seq = (self._seq + 1) % _SEQ_COUNT
        self._connection.publish(topic, payload, qos=0, retain=False)


class PrimaryHost:
    """The host application that everything is meant for, as its STATE messages tell.

    Args:
        is_awaited: Whether there is one; else it counts as online.

    Attributes:
        is_online: None until it has said so.
    """

    def __init__(self, *, is_awaited: bool) -> None:
        self.is_online = None if is_awaited else True
        self._said_at_ms: float = float("-inf")

    def hear(self, state: bytes) -> None:
        """A STATE message, ``{"online": true, "timestamp": ...}``; one that is older than the last is ignored."""
        match _json(state):
            case {"online": bool(is_online), "timestamp": int(said_at_ms)} if said_at_ms >= self._said_at_ms:
                self.is_online, self._said_at_ms = is_online, said_at_ms
            case _:
                log.warning("ignored, older than the last or not Sparkplug 3.0: STATE of the host %r", state[:100])


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _bd_seq(number: int, timestamp_ms: int) -> Metric:
    return Metric(name="bdSeq", type=DataType.INT64, value=number, timestamp_ms=timestamp_ms)
