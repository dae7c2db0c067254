"""Drain an outbox as Sparkplug data: messages of QoS 0, which nobody acknowledges, confirmed by a question after them.

A broker takes the packets of one connection in order. So its answer to a subscription that was asked for again says
that it has what was sent before; Sparkplug knows no other sign. What a host did not get from the broker stays unknown.
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

_ASK_EVERY_S = 0.1
_FIRST_WINDOW = 10


class SparkplugDelivery:
    """Records on their way over one connection, which it does not outlive.

    Args:
        connection: Where the session speaks.
        session: Says what the records say.
        outbox: What is to be said.
        question: Topic that is subscribed to already.
        window: Records at most that the broker has not confirmed; fewer at first, and on a line so slow that the answer
            would be taken for lost: between question and answer nothing comes back that shows that the line lives.
    """

    def __init__(self, connection: Connection, session: Session, outbox: Outbox, question: str, window: int) -> None:
        self._connection = connection
        self._session = session
        self._outbox = outbox
        self._question = question
        self._largest_window = window
        self._window = min(_FIRST_WINDOW, window)
        self._historical_up_to: int | None = None
        self._sent_up_to = 0
        self._sent: list[int] = []
        self._asked_for: list[int] = []
        self._asked_mid: int | None = None
        self._ask_at_s = self._asked_at_s = time.monotonic()

    @property
    def idle(self) -> bool:
        """Nothing waits."""
        return not self._sent and not self._asked_for and self._outbox.last_id <= self._sent_up_to

    @property
    def stalled(self) -> bool:
        """The broker has not answered a question for the keepalive time."""
        return self._asked_mid is not None and time.monotonic() - self._asked_at_s > self._connection.keepalive_s

    @property
    def due_at_s(self) -> float:
        """When `send` has something to do without the broker, on the monotonic clock."""
        return self._ask_at_s if self._sent and self._asked_mid is None else float("inf")

    def send(self) -> None:
        """Say what waits, oldest first, as far as the window allows; what waits at the first call is historical."""
        if self._historical_up_to is None:
            self._historical_up_to = self._outbox.last_id
        room = self._window - len(self._sent) - len(self._asked_for)
        if self._outbox.last_id > self._sent_up_to and room > 0:
            for record in self._outbox.waiting(self._sent_up_to, room):
                self._say(record, is_historical=record.id <= self._historical_up_to)
        is_due = len(self._sent) >= self._window or (self._sent and time.monotonic() >= self._ask_at_s)
        if is_due and self._asked_mid is None:
            self._ask()

    def settle(self, answers: Iterable[Acknowledgement]) -> int:
        """Forget what the broker has; returns how many records."""
        if not any(answer.mid == self._asked_mid for answer in answers):
            return 0
        is_quick = time.monotonic() - self._asked_at_s < self._connection.keepalive_s / 4
        self._window = min(2 * self._window, self._largest_window) if is_quick else max(1, self._window // 2)
        confirmed, self._asked_for = self._asked_for, []
        self._asked_mid = None
        return self._outbox.forget(confirmed)

    def _say(self, record: Waiting, *, is_historical: bool) -> None:
        content = json.loads(record.payload)
        self._session.tell_device(metrics_of(record.kind, content, record.created_at_ms, is_historical=is_historical))
        self._sent.append(record.id)
        self._sent_up_to = record.id

    def _ask(self) -> None:
        self._asked_mid = self._connection.subscribe(self._question, 1)
        self._asked_for, self._sent = self._sent, []
        self._asked_at_s = time.monotonic()
        self._ask_at_s = self._asked_at_s + _ASK_EVERY_S
