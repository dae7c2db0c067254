"""Drain an outbox as Sparkplug data: messages of QoS 0, which are not acknowledged, confirmed by a query after them.

A broker takes the packets of one connection in order. So its answer to a repeated subscription confirms what was sent
before; Sparkplug offers no other sign. Whether a host received it from the broker stays unknown.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from agent.sparkplug.metrics import metrics_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.mqtt.connection import Acknowledgement, Connection
    from agent.outbox.outbox import Outbox, Waiting
    from agent.sparkplug.session import Session

_QUERY_EVERY_S = 0.1
_FIRST_WINDOW = 10


class SparkplugDelivery:
    """Publishes records over one connection; a new connection needs a new delivery.

    Args:
        topic: A topic that is subscribed to already.
        window: Most records without a confirmation. Fewer at first, and on a connection so slow that the answer would
            be taken for lost: between query and answer nothing comes back that shows that it is alive.
    """

    def __init__(self, connection: Connection, session: Session, outbox: Outbox, topic: str, window: int) -> None:
        self._connection = connection
        self._session = session
        self._outbox = outbox
        self._topic = topic
        self._largest_window = window
        self._window = min(_FIRST_WINDOW, window)
        self._historical_up_to: int | None = None
        self._sent_up_to = 0
        self._sent: list[int] = []
        self._too_large: list[int] = []
        self._queried: list[int] = []
        self._query_mid: int | None = None
        self._query_at_s = self._queried_at_s = time.monotonic()

    @property
    def idle(self) -> bool:
        """Nothing waits."""
        return not self._sent and not self._queried and self._outbox.last_id <= self._sent_up_to

    @property
    def stalled(self) -> bool:
        """The broker has not answered a query for the keepalive time."""
        return self._query_mid is not None and time.monotonic() - self._queried_at_s > self._connection.keepalive_s

    @property
    def due_at_s(self) -> float:
        """When `send` has something to do without the broker, on the monotonic clock."""
        if self._query_mid is not None:
            return float("inf")
        if self._sent:
            return self._query_at_s
        # Records that were too large bring no answer, which would be the time to send more.
        return self._query_at_s if self._has_something and self._room > 0 else float("inf")

    @property
    def _has_something(self) -> bool:
        return self._session.is_born and self._outbox.last_id > self._sent_up_to

    @property
    def _room(self) -> int:
        return min(self._window - len(self._sent) - len(self._queried), self._connection.room)

    def send(self) -> None:
        """Publish what waits, oldest first, as far as the window allows; what waits at the first call is historical."""
        if not self._session.is_born:
            return
        if self._historical_up_to is None:
            self._historical_up_to = self._outbox.last_id
        if self._too_large and self._session.is_limit_certain:
            self._drop_too_large()
        room = self._room
        if self._has_something and room > 0:
            for record in self._outbox.waiting(self._sent_up_to, room):
                self._publish(record, is_historical=record.id <= self._historical_up_to)
        is_due = len(self._sent) >= self._window or (self._sent and time.monotonic() >= self._query_at_s)
        if is_due and self._query_mid is None:
            self._query()

    def settle(self, answers: Iterable[Acknowledgement]) -> int:
        """Forget the records that the broker has; returns how many."""
        if not any(answer.mid == self._query_mid for answer in answers):
            return 0
        is_quick = time.monotonic() - self._queried_at_s < self._connection.keepalive_s / 4
        self._window = min(2 * self._window, self._largest_window) if is_quick else max(1, self._window // 2)
        confirmed, self._queried = self._queried, []
        self._query_mid = None
        return self._outbox.forget(confirmed)

    def _publish(self, record: Waiting, *, is_historical: bool) -> None:
        content = json.loads(record.payload)
        metrics = metrics_of(record.kind, content, record.created_at_ms, is_historical=is_historical)
        if self._session.publish_device_data(metrics):
            self._sent.append(record.id)
        else:
            self._too_large.append(record.id)
        self._sent_up_to = record.id

    def _drop_too_large(self) -> None:
        for record_id in self._too_large:
            self._outbox.drop_too_large(record_id)
        self._too_large = []

    def _query(self) -> None:
        self._query_mid = self._connection.subscribe(self._topic, 1)
        self._queried, self._sent = self._sent, []
        self._queried_at_s = time.monotonic()
        self._query_at_s = self._queried_at_s + _QUERY_EVERY_S
