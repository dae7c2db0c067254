"""Drain the outbox over one connection: a bounded number of records in flight, each forgotten when acknowledged."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from agent.messages.records import as_historical
from agent.messages.shorter import shorter_forms
from agent.mqtt.refused_records import RefusedRecords

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.mqtt.connection import Acknowledgement, Connection
    from agent.outbox.outbox import Outbox, Waiting

log = logging.getLogger(__name__)

_FORGET_EVERY_S = 0.25  # one commit for many records: a repeat after a crash is cheap, a commit for each is not
_KEPT_FREE = 4
_CATCH_UP_S = 0.05  # a burst that makes up for a late broker or processor


class OutboxDrain:
    """Publishes records over one connection; a new connection needs a new drain.

    Args:
        connection: Just accepted: the records that wait now are historical, later ones are not.
        window: Most records in flight; the broker may allow fewer.
        refused_retry_s: When a refused record is offered again. A topic with a whole window of refused records is held
            back until then, so that a broker that refuses everything is not sent everything.
        records_per_s: Limit that leaves processor and outbox to the inspection after an outage.

    Attributes:
        refusal: Why the broker last refused a message; None when it took all.
    """

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        window: int,
        refused_retry_s: float,
        records_per_s: float = float("inf"),
    ) -> None:
        self.refusal: str | None = None
        self._connection = connection
        self._outbox = outbox
        # Answers to parts and commands must find room, however long the backlog.
        kept_free = min(_KEPT_FREE, connection.receive_maximum // 2)
        self._window = min(window, connection.receive_maximum - kept_free)
        self._refused = RefusedRecords(self._window, refused_retry_s)
        self._records_per_s = records_per_s
        self._historical_up_to = outbox.last_id
        self._sent_up_to = 0
        self._in_flight: dict[int, tuple[int, str]] = {}
        self._acknowledged: list[int] = []
        self._forget_at_s = self._progress_at_s = self._send_at_s = time.monotonic()
        self._is_throttled = False

    @property
    def idle(self) -> bool:
        """Nothing is in flight, and every waiting record has been offered."""
        return not self._in_flight and self._outbox.depth() <= len(self._acknowledged) + len(self._refused)

    @property
    def stalled(self) -> bool:
        """Records are in flight, and for the keepalive time none was acknowledged."""
        return bool(self._in_flight) and time.monotonic() - self._progress_at_s > self._connection.keepalive_s

    @property
    def due_at_s(self) -> float:
        """When `send` or `settle` has something to do without the broker, on the monotonic clock."""
        forget_at_s = self._forget_at_s if self._acknowledged else float("inf")
        return min(forget_at_s, self._send_at_s if self._is_throttled else float("inf"))

    def send(self) -> None:
        """Fill the window from the outbox, oldest first."""
        for record_id in self._refused.take_due(self._connection.room):
            self._offer_again(record_id)
        room = min(self._window - len(self._in_flight), self._connection.room)
        # Half a window at a time: one query for fifty records costs little more than one for a single record.
        has_something = self._sent_up_to < self._outbox.last_id and len(self._in_flight) <= self._window // 2
        now_s = time.monotonic()
        self._is_throttled = has_something and room > 0 and now_s < self._send_at_s
        if has_something and not self._is_throttled:
            sent = self._send_next(room)
            self._send_at_s = max(self._send_at_s, now_s - _CATCH_UP_S) + sent / self._records_per_s
            # To what was too large comes no answer, which would be the time to send more.
            self._is_throttled = not self._in_flight and self._sent_up_to < self._outbox.last_id

    def settle(self, acknowledgements: Iterable[Acknowledgement]) -> int:
        """Handle the broker's answers, and forget the records that it has.

        Returns:
            How many records were forgotten; several answers share one commit, so often none.
        """
        for acknowledgement in acknowledgements:
            record = self._in_flight.pop(acknowledgement.mid, None)
            if acknowledgement.is_too_large:
                if record is not None:
                    self._progress_at_s = time.monotonic()
                    self._offer_again(record[0])  # shorter
                continue
            if acknowledgement.refused is not None:
                self._note_refusal(acknowledgement.refused)
            if record is not None:
                self._note_answer(*record, acknowledgement.refused)
        is_due = len(self._acknowledged) >= self._window or time.monotonic() >= self._forget_at_s
        return self.forget() if is_due else 0

    def forget(self) -> int:
        """Forget the acknowledged records now; returns how many."""
        acknowledged, self._acknowledged = self._acknowledged, []
        return self._outbox.forget(acknowledged) if acknowledged else 0

    def _send_next(self, room: int) -> int:
        """Publish up to ``room`` records; returns how many."""
        sent = 0
        while sent < room and self._sent_up_to < self._outbox.last_id:
            records = self._outbox.waiting(self._sent_up_to, room - sent)
            for record in records:
                self._sent_up_to = record.id
                if self._refused.is_closed(record.topic):
                    self._refused.hold(record.id, record.topic)  # which needs no room
                else:
                    self._publish(record)
                    sent += 1
            if not records:
                break
        return sent

    def _publish(self, record: Waiting) -> None:
        if not self._in_flight:
            self._progress_at_s = time.monotonic()
        payload = as_historical(record.payload) if record.id <= self._historical_up_to else record.payload
        mid = self._connection.publish(record.topic, payload, qos=1, retain=False, shorter=shorter_forms(payload))
        if mid is not None:
            self._in_flight[mid] = record.id, record.topic
        elif self._connection.limit.is_certain(record.topic):
            self._outbox.drop_too_large(record.id)
            self._refused.forget(record.id)
        else:
            self._refused.note_refusal(record.id, record.topic)

    def _offer_again(self, record_id: int) -> None:
        for record in self._outbox.waiting(record_id - 1, 1):
            if record.id == record_id:
                self._publish(record)
                return
        self._refused.forget(record_id)  # it was dropped meanwhile

    def _note_answer(self, record_id: int, topic: str, refused: str | None) -> None:
        self._progress_at_s = time.monotonic()
        if refused is not None:
            self._refused.note_refusal(record_id, topic)
            return
        if not self._acknowledged:
            self._forget_at_s = self._progress_at_s + _FORGET_EVERY_S
        self._acknowledged.append(record_id)
        if self._refused.forget(record_id) and not len(self._refused):
            log.info("the broker takes what it had refused")
            self.refusal = None

    def _note_refusal(self, reason: str) -> None:
        if self.refusal is None:
            log.warning(
                "the broker refuses messages (%s): records wait and are offered again; fix the access rights there",
                reason,
            )
        self.refusal = reason
