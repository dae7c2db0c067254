"""Everything that the station publishes over plain MQTT, on one thread of its own.

    connect -> announce the station (retained) -> drain the outbox, oldest first -> connection lost -> connect
               live messages (answers to parts and commands) go before everything else

At least once: a record is forgotten when the broker has acknowledged it, so a power cut in between sends it again;
consumers drop repeats by ``resultId``.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.backoff import DEFAULT_PACE, BackoffLimits
from agent.clock import now_ms
from agent.messages.fields import adapter
from agent.messages.payloads import MESSAGES, Status
from agent.messages.records import Payload, to_json
from agent.messages.shorter import shorter_forms
from agent.mqtt.client_thread import BrokerClient
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
    """What the station publishes about itself.

    The callables return the current values. They are called on the publisher's thread and must neither raise nor wait.

    Attributes:
        state: State and its reason, for ``status``; the others are the contents of the topics of their names.
    """

    session_id: str
    version: str
    state: Callable[[], tuple[str, str]]
    info: Callable[[], Payload]
    alert_state: Callable[[], Payload]
    health: Callable[[], Payload]


class Publisher(BrokerClient):
    """Publishes the station, its records and its live messages, from ``start`` to ``stop``."""

    def __init__(  # noqa: PLR0913, PLR0917 - each once
        self,
        settings: BrokerSettings,
        topics: Topics,
        outbox: Outbox,
        station: Station,
        live: LiveMessages,
        pace: BackoffLimits = DEFAULT_PACE,
    ) -> None:
        super().__init__(settings, outbox, pace, "publisher")
        for message in MESSAGES.values():
            adapter(message)  # takes tens of milliseconds, which the first part must not wait for
        self._topics = topics
        self._station = station
        self._live = live
        self._unsent: Counter[str] = Counter()
        self._live_messages: deque[LiveMessage] = deque()
        self._subscription: int | None = None
        self._subscription_error: str | None = None
        self._to_announce: set[Announcement] = set()
        self._announced_state: tuple[str, str] | None = None
        self._health_at_s = 0.0

    def announce(self, announcement: Announcement) -> None:
        """Publish a retained message again, because its content has changed. From any thread, costs microseconds."""
        self._to_announce.add(announcement)
        self._wake.set()

    def _serve(self, connection: Connection) -> None:
        self._to_announce.update(_ANNOUNCEMENTS)
        self._health_at_s = time.monotonic()
        self._live_messages.clear()
        self._live.discard()
        self._subscription = connection.subscribe(self._live.subscription, 1)
        pace = self._pace
        drain = OutboxDrain(connection, self._outbox, pace.window, pace.refused_retry_s, pace.records_per_s)
        while connection.lost is None and not self._is_done(drain):
            self._publish_live(connection)
            self._publish_station(connection)
            drain.send()
            health_at_s = self._health_at_s if connection.room > 0 else float("inf")
            idle_s = self._idle_s(health_at_s, drain.due_at_s, self._live.due_at_s)
            acknowledgements = connection.service(idle_s, self._wake)
            for message in connection.take_received():
                self._live.receive(message)
            if any(answer.is_too_large for answer in acknowledgements):
                self._to_announce.update(_ANNOUNCEMENTS)  # one of them, perhaps: shorter this time
            self.published += drain.settle(self._without_subscription(acknowledgements))
            self.last_error = drain.refusal or self._subscription_error or self._limit.complaint
            self._checkpoint()
            if drain.stalled:
                connection.drop("it acknowledges nothing")
        if connection.lost is None:
            self._publish_health(connection)  # the final counts: captured = results + dropped
            self._publish_last(connection, lambda: self._publish_status(connection, *_STOPPED), drain.settle)
        self.published += drain.forget()

    def _is_done(self, drain: OutboxDrain) -> bool:
        if self._stop_at_s is None:
            return False
        return (drain.idle and not self._to_announce and not self._live_messages) or self._is_stop_due

    def _publish_live(self, connection: Connection) -> None:
        self._live_messages.extend(self._live.take())
        while self._live_messages and connection.room > 0:
            topic, payload, expires_s = self._live_messages.popleft()
            self._publish(connection, topic, payload, qos=1, retain=False, expires_s=expires_s)

    def _without_subscription(self, acknowledgements: list[Acknowledgement]) -> list[Acknowledgement]:
        """The acknowledgements of messages; that of our subscription is noted here."""
        for answer in acknowledgements:
            if answer.mid == self._subscription:
                self._subscription = None
                self._subscription_error = None
                if answer.refused is not None:
                    error = f"the broker refuses the subscription to {self._live.subscription}: {answer.refused}"
                    log.warning(
                        "%s; no command is received; give %r the right to read it", error, self._settings.client_id
                    )
                    self._subscription_error = error
                return [other for other in acknowledgements if other is not answer]
        return acknowledgements

    def _publish_station(self, connection: Connection) -> None:
        for announcement in _ANNOUNCEMENTS:
            if announcement in self._to_announce and connection.room > 0:
                # Removed first: a change while the value is being fetched is announced again.
                self._to_announce.discard(announcement)
                self._publish_announcement(connection, announcement)
        if time.monotonic() >= self._health_at_s and connection.room > 0:
            if self._station.state() != self._announced_state:
                self.announce("status")
            self._health_at_s = time.monotonic() + self._pace.health_every_s
            self._publish_health(connection)

    def _publish_health(self, connection: Connection) -> None:
        health = self._station.health()
        if self._unsent:
            unsent = {f"too large: {name}": count for name, count in self._unsent.items()}
            health = {**health, "dropped": {**health.get("dropped", {}), **unsent}}
        self._publish(connection, self._topics.health, to_json(health), qos=0, retain=False)

    def _publish_announcement(self, connection: Connection, announcement: Announcement) -> None:
        if announcement == "status":
            self._announced_state = self._station.state()
            self._publish_status(connection, *self._announced_state)
        elif announcement == "info":
            self._publish(connection, self._topics.info, to_json(self._station.info()), qos=1, retain=True)
        else:
            state = to_json(self._station.alert_state())
            self._publish(connection, self._topics.alert_state, state, qos=1, retain=True)

    def _publish_status(self, connection: Connection, state: str, reason: str) -> int | None:
        return self._publish(connection, self._topics.status, self._status(state, reason), qos=1, retain=True)

    def _publish(  # noqa: PLR0913 - as the connection's
        self,
        connection: Connection,
        topic: str,
        payload: str,
        *,
        qos: Literal[0, 1],
        retain: bool,
        expires_s: int | None = None,
    ) -> int | None:
        """Publish a message other than a record; None when it is too large, which is counted."""
        shorter = shorter_forms(payload)
        mid = connection.publish(topic, payload, qos=qos, retain=retain, expires_s=expires_s, shorter=shorter)
        if mid is None:
            self._unsent[topic.rpartition("/")[2]] += 1
        return mid

    def _will(self) -> Will:
        return Will(self._topics.status, self._status(_OFFLINE, "connection lost"))

    def _status(self, state: str, reason: str) -> str:
        status = Status(
            online=state != _OFFLINE,
            timestamp_ms=now_ms(),
            state=state,
            reason=reason,
            session_id=self._station.session_id,
            version=self._station.version,
        )
        return to_json(status.payload())


_OFFLINE = "offline"
_STOPPED = (_OFFLINE, "stopped")
