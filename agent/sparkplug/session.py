"""The births, data and deaths of an edge node over one connection, numbered without a gap."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.sparkplug.metrics import shorter_forms
from agent.sparkplug.payload import DataType, Metric, Value, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.messages.topics import SparkplugTopics
    from agent.mqtt.connection import Connection

log = logging.getLogger(__name__)

REBIRTH = "Node Control/Rebirth"
_SEQ_COUNT = 256


def death_payload(bd_seq: int) -> bytes:
    """Content of an NDEATH, as will and at the end: which birth it ends."""
    timestamp_ms = now_ms()
    return encode([_bd_seq_metric(bd_seq, timestamp_ms)], timestamp_ms, None, with_types=True)


class Session:
    """One edge node and its one device, over one connection.

    Args:
        connection: Its will is the NDEATH with the same ``bd_seq``.

    Attributes:
        is_born: The births have been sent; before them nothing else may be.
        birth_is_due: Births must be sent next. Not after births that are too large for the broker.
    """

    def __init__(self, connection: Connection, topics: SparkplugTopics, bd_seq: int) -> None:
        self.is_born = False
        self.birth_is_due = True
        self._connection = connection
        self._topics = topics
        self._bd_seq = bd_seq
        self._seq = 0
        self._published: dict[str, Value] = {}

    @property
    def is_limit_certain(self) -> bool:
        """Whether device data that are too large for the broker can be given up."""
        return self._connection.limit.is_certain(self._topics.device("DATA"))

    def publish_births(self, node: Sequence[Metric], device: Sequence[Metric]) -> None:
        """NBIRTH and DBIRTH, with every metric that will ever be sent; ``seq`` starts again from 0."""
        timestamp_ms = now_ms()
        control = Metric(name=REBIRTH, type=DataType.BOOLEAN, value=False, timestamp_ms=timestamp_ms)
        self._seq = 0
        birth = [_bd_seq_metric(self._bd_seq, timestamp_ms), control, *node]
        # In the order of their times, as the specification requires of values that are not historical.
        by_time = sorted(device, key=lambda metric: metric.timestamp_ms)
        self.birth_is_due = False
        self.is_born = self._publish(self._topics.node("BIRTH"), birth, with_types=True) and self._publish(
            self._topics.device("BIRTH"), by_time, with_types=True
        )
        self._published = {metric.name: metric.value for metric in node}

    def publish_node_data(self, metrics: Sequence[Metric]) -> None:
        """NDATA with the metrics that have changed, if any."""
        changed = [metric for metric in metrics if metric.value != self._published.get(metric.name)]
        if changed:
            self._publish(self._topics.node("DATA"), changed)
            self._published.update((metric.name, metric.value) for metric in changed)

    def publish_device_data(self, metrics: Sequence[Metric]) -> bool:
        """DDATA with all of these, changed or not: a lost message then affects no other.

        Returns:
            Whether it was sent: it is not too large for the broker.
        """
        return self._publish(self._topics.device("DATA"), metrics)

    def publish_deaths(self) -> int | None:
        """DDEATH and NDEATH; the message number of the last comes back when the broker has it."""
        if self.is_born:
            self._publish(self._topics.device("DEATH"), [])
        death = death_payload(self._bd_seq)
        return self._connection.publish(self._topics.node("DEATH"), death, qos=1, retain=False)

    def _publish(self, topic: str, metrics: Sequence[Metric], *, with_types: bool = False) -> bool:
        """Publish a message, with fewer values if the broker does not take all; whether it takes any."""
        encoded = partial(encode, timestamp_ms=now_ms(), seq=self._seq, with_types=with_types)
        shorter = map(encoded, shorter_forms(metrics))
        if self._connection.publish(topic, encoded(metrics), qos=0, retain=False, shorter=shorter) is None:
            return False
        self._seq = (self._seq + 1) % _SEQ_COUNT
        return True


class PrimaryHost:
    """The primary host application, as its STATE messages show it.

    Args:
        is_awaited: Whether there is one; if not, it counts as online.

    Attributes:
        is_online: None until its first STATE.
    """

    def __init__(self, *, is_awaited: bool) -> None:
        self.is_online = None if is_awaited else True
        self._state_at_ms: float = float("-inf")

    def update(self, state: bytes) -> None:
        """Take in a STATE message, ``{"online": true, "timestamp": ...}``, unless it is older than the last."""
        match _json(state):
            case {"online": bool(is_online), "timestamp": int(at_ms)} if at_ms >= self._state_at_ms:
                self.is_online, self._state_at_ms = is_online, at_ms
            case _:
                log.warning("ignored, older than the last or not Sparkplug 3.0: STATE of the host %r", state[:100])


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _bd_seq_metric(number: int, timestamp_ms: int) -> Metric:
    return Metric(name="bdSeq", type=DataType.INT64, value=number, timestamp_ms=timestamp_ms)
