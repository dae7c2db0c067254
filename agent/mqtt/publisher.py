"""Everything that leaves the station over MQTT, on one thread of its own.

    wait for a line -> say who we are (retained) -> drain the outbox, oldest first -> the line is lost -> again
                       what is for now (answers to parts and commands) goes before everything else

At least once: a record is forgotten when the broker has acknowledged it, so power lost in between sends it again;
consumers drop repeats by ``resultId``.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.backoff import DEFAULT_PACE, BackoffLimits
from agent.clock import now_ms
from agent.messages.payloads import Status
from agent.messages.records import Payload, to_json
from agent.mqtt.client_thread import GOODBYE_S, BrokerClient
from agent.mqtt.connect import BrokerSettings, Will
from agent.mqtt.outbox_drain import OutboxDrain

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.messages.topics import Topics
    from agent.mqtt.connection import Acknowledgement, Connection
    from agent.mqtt.live_messages import LiveMessage, LiveMessages
    from agent.outbox.outbox import Outbox

Announcement: TypeAlias = Literal["status", "info", "alert_state"]

log = logging.getLogger(__name__)

_ANNOUNCEMENTS: tuple[Announcement, ...] = ("status", "info", "alert_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """What the station says of itself.

    The callables give the values of now. They are called on the publisher's thread and must neither raise nor wait.

    Attributes:
        session_id: New at each start of the agent.
        version: Of shiftwatch.
        state: State and its reason, for ``status``.
        info: Content of ``info``.
        alert_state: Content of ``alert/state``.
        health: Content of ``health``.
    """

    session_id: str
    version: str
    state: Callable[[], tuple[str, str]]
    info: Callable[[], Payload]
    alert_state: Callable[[], Payload]
    health: Callable[[], Payload]


class Publisher(BrokerClient):
    """Keeps the line up and publishes what waits, from ``start`` to ``stop``."""

    def __init__(  # noqa: PLR0913, PLR0917 - each once
        self,
        settings: BrokerSettings,
        topics: Topics,
        outbox: Outbox,
        station: Station,
        dialogue: LiveMessages,
        pace: BackoffLimits = DEFAULT_PACE,
    ) -> None:
        super().__init__(settings, outbox, pace, "publisher")
        self._topics = topics
        self._station = station
        self._dialogue = dialogue
        self._to_say: deque[LiveMessage] = deque()
        self._subscription: int | None = None
        self._deaf: str | None = None
        self._to_announce: set[Announcement] = set()
        self._announced_state: tuple[str, str] | None = None
        self._health_at_s = 0.0

    def announce(self, announcement: Announcement) -> None:
        """Publish a retained message again, because what it says has changed. From any thread, costs microseconds."""
        self._to_announce.add(announcement)
        self._wake.set()

    def _use(self, connection: Connection) -> None:
        self._to_announce.update(_ANNOUNCEMENTS)
        self._health_at_s = time.monotonic()
        self._to_say.clear()
        self._dialogue.begin()
        self._subscription = connection.subscribe(self._dialogue.subscription, 1)
        pace = self._pace
        delivery = OutboxDrain(connection, self._outbox, pace.window, pace.refused_retry_s, pace.records_per_s)
        while connection.lost is None and not self._is_done(delivery):
            self._answer(connection)
            self._speak(connection)
            delivery.send()
            acknowledgements = connection.service(self._idle_s(delivery), self._wake)
            for message in connection.take_received():
                self._dialogue.hear(message)
            self.published += delivery.settle(self._without_subscription(acknowledgements))
            self.last_error = delivery.refusal or self._deaf
            self._checkpoint()
            if delivery.stalled:
                connection.drop("it acknowledges nothing")
        if connection.lost is None:
            self._say_goodbye(connection, delivery)
        self.published += delivery.forget()

    def _is_done(self, delivery: OutboxDrain) -> bool:
        if self._stop_at_s is None:
            return False
        return (delivery.idle and not self._to_announce and not self._to_say) or time.monotonic() >= self._stop_at_s

    def _answer(self, connection: Connection) -> None:
        self._to_say.extend(self._dialogue.say())
        while self._to_say and connection.room > 0:
            topic, payload, expires_s = self._to_say.popleft()
            connection.publish(topic, payload, qos=1, retain=False, expires_s=expires_s)

    def _without_subscription(self, acknowledgements: list[Acknowledgement]) -> list[Acknowledgement]:
        """The answers to messages; the one to our subscription is noted here."""
        for answer in acknowledgements:
            if answer.mid == self._subscription:
                self._subscription = None
                self._deaf = None
                if answer.refused is not None:
                    self._deaf = f"the broker refuses us {self._dialogue.subscription}: {answer.refused}"
                    log.warning(
                        "%s; no command is heard; give %r the right to read it", self._deaf, self._settings.client_id
                    )
                return [other for other in acknowledgements if other is not answer]
        return acknowledgements

    def _speak(self, connection: Connection) -> None:
        for announcement in _ANNOUNCEMENTS:
            if announcement in self._to_announce and connection.room > 0:
                # Removed first: a change while the value is being fetched is announced again.
                self._to_announce.discard(announcement)
                self._publish_announcement(connection, announcement)
        if time.monotonic() >= self._health_at_s:
            if self._station.state() != self._announced_state:
                self.announce("status")
            self._health_at_s = time.monotonic() + self._pace.health_every_s
            self._publish_health(connection)

    def _publish_health(self, connection: Connection) -> None:
        connection.publish(self._topics.health, to_json(self._station.health()), qos=0, retain=False)

    def _publish_announcement(self, connection: Connection, announcement: Announcement) -> None:
        if announcement == "status":
            self._announced_state = state, reason = self._station.state()
            connection.publish(self._topics.status, self._status(state, reason, online=True), qos=1, retain=True)
        elif announcement == "info":
            connection.publish(self._topics.info, to_json(self._station.info()), qos=1, retain=True)
        else:
            connection.publish(self._topics.alert_state, to_json(self._station.alert_state()), qos=1, retain=True)

    def _say_goodbye(self, connection: Connection, delivery: OutboxDrain) -> None:
        until_s = time.monotonic() + GOODBYE_S
        mid: int | None = None
        self._publish_health(connection)  # closes the books: captured = results + dropped
        while connection.lost is None and time.monotonic() < until_s:
            if mid is None and connection.room > 0:
                status = self._status("offline", "stopped", online=False)
                mid = connection.publish(self._topics.status, status, qos=1, retain=True)
            acknowledgements = connection.service(until_s - time.monotonic())
            self.published += delivery.settle(acknowledgements)
            if any(acknowledgement.mid == mid for acknowledgement in acknowledgements):
                return

    def _will(self) -> Will:
        return Will(self._topics.status, self._status("offline", "connection lost", online=False))

    def _status(self, state: str, reason: str, *, online: bool) -> str:
        status = Status(
            online=online,
            timestamp_ms=now_ms(),
            state=state,
            reason=reason,
            session_id=self._station.session_id,
            version=self._station.version,
        )
        return to_json(status.payload())

    def _idle_s(self, delivery: OutboxDrain) -> float:
        due_at_s = min(self._health_at_s, self._checkpoint_at_s, delivery.due_at_s, self._dialogue.due_at_s)
        if self._stop_at_s is not None:
            due_at_s = min(due_at_s, self._stop_at_s)
        return due_at_s - time.monotonic()
