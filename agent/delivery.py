"""Drain the outbox over one connection: a bounded number under way, each forgotten when it is acknowledged."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from agent.records import as_historical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.connection import Acknowledgement, Connection
    from agent.outbox import Outbox, Waiting

log = logging.getLogger(__name__)

_FORGET_EVERY_S = 0.25  # one commit for many records: a repeat after a crash is cheap, a commit for each is not
_STALLED_AFTER_S = 30.0
_LATE_S = 0.05  # what was not sent because the broker or the processor was late, is caught up with


class Delivery:
    """Records on their way over one connection, which it does not outlive.

    Args:
        connection: A line that has just been accepted: what waits now is historical, what comes later is not.
        outbox: What is to be published.
        window: Records under way at most; the broker may allow fewer.
        refused_retry_s: When a record that the broker refused is offered again. Until then it keeps its place in the
            window, so that a broker that refuses everything is not sent everything.
        records_per_s: Not more, so that after an outage the loop finds the processor and the outbox free.

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
        self._window = min(window, connection.receive_maximum)
        self._refused_retry_s = refused_retry_s
        self._records_per_s = records_per_s
        self._historical_up_to = outbox.last_id
        self._sent_up_to = 0
        self._under_way: dict[int, int] = {}
        self._acknowledged: list[int] = []
        self._refused: list[int] = []
        now_s = time.monotonic()
        self._forget_at_s = self._progress_at_s = self._retry_at_s = self._send_at_s = now_s
        self._is_held_back = False

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nothing waits that was not offered."""
        return not self._under_way and self._outbox.depth() <= len(self._acknowledged) + len(self._refused)

    @property
    def stalled(self) -> bool:
        """The broker lives and acknowledges nothing."""
        return bool(self._under_way) and time.monotonic() - self._progress_at_s > _STALLED_AFTER_S

    @property
    def due_at_s(self) -> float:
        """When `send` or `settle` has something to do without the broker, on the monotonic clock."""
        return min(
            self._forget_at_s if self._acknowledged else float("inf"),
            self._send_at_s if self._is_held_back else float("inf"),
        )

    def send(self) -> None:
        """Fill the window from the outbox, oldest first."""
        if self._refused and time.monotonic() >= self._retry_at_s:
            self._offer_refused_again()
        # Half a window at a time: one query for fifty records costs little more than one for a single record.
        if self._outbox.last_id <= self._sent_up_to or len(self._under_way) > self._window // 2:
            return
        room = min(self._window - len(self._under_way) - len(self._refused), self._connection.room)
        now_s = time.monotonic()
        self._is_held_back = room > 0 and now_s < self._send_at_s
        if room <= 0 or self._is_held_back:
            return
        records = self._outbox.waiting(self._sent_up_to, room)
        for record in records:
            self._publish(record)
            self._sent_up_to = record.id
        self._send_at_s = max(self._send_at_s, now_s - _LATE_S) + len(records) / self._records_per_s

    def settle(self, acknowledgements: Iterable[Acknowledgement]) -> int:
        """Take note of the broker's answers, and forget what it has.

        Returns:
            How many records were forgotten; several answers share one commit, so often none.
        """
        for acknowledgement in acknowledgements:
            if acknowledgement.refused is not None:
                self._note_refusal(acknowledgement.refused)
            record_id = self._under_way.pop(acknowledgement.mid, None)
            if record_id is not None:
                self._note_answer(record_id, accepted=acknowledgement.refused is None)
        is_due = len(self._acknowledged) >= self._window or time.monotonic() >= self._forget_at_s
        return self.forget() if self._acknowledged and is_due else 0

    def forget(self) -> int:
        """Forget now what was acknowledged; returns how many records."""
        acknowledged, self._acknowledged = self._acknowledged, []
        return self._outbox.forget(acknowledged) if acknowledged else 0

    def _publish(self, record: Waiting) -> None:
        if not self._under_way:
            self._progress_at_s = time.monotonic()
        payload = as_historical(record.payload) if record.id <= self._historical_up_to else record.payload
        self._under_way[self._connection.publish(record.topic, payload, qos=1, retain=False)] = record.id

    def _note_answer(self, record_id: int, *, accepted: bool) -> None:
        now_s = self._progress_at_s = time.monotonic()
        if accepted:
            if not self._acknowledged:
                self._forget_at_s = now_s + _FORGET_EVERY_S
            self._acknowledged.append(record_id)
        else:
            if not self._refused:
                self._retry_at_s = now_s + self._refused_retry_s
            self._refused.append(record_id)

    def _note_refusal(self, reason: str) -> None:
        if self.refusal is None:
            log.warning("the broker refuses messages (%s): records wait and are offered again", reason)
        self.refusal = reason

    def _offer_refused_again(self) -> None:
        offered = self._refused[: self._connection.room]
        self._refused = self._refused[len(offered) :]
        for record_id in offered:
            for record in self._outbox.waiting(record_id - 1, 1):
                if record.id == record_id:  # else it was dropped meanwhile
                    self._publish(record)
