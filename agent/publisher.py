"""Everything that leaves the station over MQTT, on one thread of its own.

    wait for a line -> say who we are (retained) -> drain the outbox, oldest first -> the line is lost -> again

At least once: a record is forgotten when the broker has acknowledged it, so power lost in between sends it again;
consumers drop repeats by ``resultId``.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.broker import BrokerSettings, Connection, Will, connect
from agent.delivery import Delivery
from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.pace import DEFAULT_PACE, Backoff, Pace
from agent.records import Payload, status_payload, to_json
from agent.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.outbox import Outbox
    from agent.topics import Topics

Announcement: TypeAlias = Literal["status", "info", "alert_state"]

log = logging.getLogger(__name__)

_ANNOUNCEMENTS: tuple[Announcement, ...] = ("status", "info", "alert_state")
_CHECKPOINT_EVERY_S = 5.0
_GOODBYE_S = 0.5
_SUSPICIOUSLY_SHORT_S = 10.0


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


class Publisher:
    """Keeps the line up and publishes what waits, from ``start`` to ``stop``; a context manager over both.

    Attributes:
        connected: The broker has accepted us and the line lives.
        published: Records that the broker has acknowledged and the outbox has forgotten.
        last_error: Why we are not connected, or what the broker last refused; None when all is well.
    """

    def __init__(
        self, settings: BrokerSettings, topics: Topics, outbox: Outbox, station: Station, pace: Pace = DEFAULT_PACE
    ) -> None:
        self.connected = False
        self.published = 0
        self.last_error: str | None = None
        self._settings = settings
        self._topics = topics
        self._outbox = outbox
        self._station = station
        self._pace = pace
        self._backoff = Backoff(pace)
        self._wake = Wake()
        self._to_announce: set[Announcement] = set()
        self._stop_at_s: float | None = None
        self._announced_state: tuple[str, str] | None = None
        self._health_at_s = 0.0
        self._checkpoint_at_s = 0.0
        self._last_logged = ""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def waiting(self) -> int:
        """Records in the outbox."""
        return self._outbox.depth()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; the watchdog must starve when it does not."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; returns before there is a line."""
        self._thread.start()

    def wake(self) -> None:
        """A record was put: look now. From any thread, costs about a microsecond."""
        self._wake.set()

    def announce(self, announcement: Announcement) -> None:
        """Publish a retained message again, because what it says has changed. From any thread, costs microseconds."""
        self._to_announce.add(announcement)
        self._wake.set()

    def stop(self, deadline_s: float = 1.0) -> None:
        """Publish what the deadline allows, say goodbye, and end the thread; what is left waits in the outbox.

        Returns at most a second after the deadline, even while an attempt to connect hangs; the thread then ends
        with that attempt and does not touch the outbox again.
        """
        self._stop_at_s = time.monotonic() + deadline_s
        self._wake.set()
        self._thread.join(deadline_s + 2 * _GOODBYE_S)
        if not self._thread.is_alive():
            self._wake.close()

    def _run(self) -> None:
        try:
            self._pause(self._attempt())  # even when already told to stop: a short run has something to say, too
            while self._stop_at_s is None:
                self._pause(self._attempt())
        finally:
            self.connected = False

    def _attempt(self) -> float:
        """One connection from beginning to end; returns how long to wait before the next, in seconds."""
        try:
            connection = connect(self._settings, self._will())
        except BrokerRefusedError as error:
            self._note_down(f"refused: {error.reason}", f"{error.what}; {error.remedy}")
            return self._pace.refused_retry_s
        except BrokerUnreachableError as error:
            self._note_down("down", f"{error.what}; {error.remedy}")
            return self._backoff.next_s()
        if self._stop_at_s is None or time.monotonic() < self._stop_at_s:
            self._use(connection)
        connection.close()
        return self._backoff.next_s()

    def _use(self, connection: Connection) -> None:
        began_s = time.monotonic()
        self._note_up()
        self._to_announce.update(_ANNOUNCEMENTS)
        self._health_at_s = began_s
        delivery = Delivery(connection, self._outbox, self._pace.window, self._pace.refused_retry_s)
        while connection.lost is None and not self._is_done(delivery):
            self._speak(connection)
            delivery.send()
            self.published += delivery.settle(connection.service(self._idle_s(delivery), self._wake))
            self.last_error = delivery.refusal
            self._checkpoint()
            if delivery.stalled:
                connection.drop("it acknowledges nothing")
        self.connected = False
        if connection.lost is None:
            self._say_goodbye(connection, delivery)
        else:
            self._note_down("down", self._why_lost(connection, time.monotonic() - began_s))
        self.published += delivery.forget()
        self._backoff.note_connection(time.monotonic() - began_s)

    def _why_lost(self, connection: Connection, lasted_s: float) -> str:
        why = f"connection to {self._settings.address} lost: {connection.lost}; records wait meanwhile"
        if lasted_s < _SUSPICIOUSLY_SHORT_S:
            # A broker ends the older of two connections with one client id, and most do so without a word.
            why += f"; if it happens again and again, another agent has the client id {self._settings.client_id!r}: "
            why += "give each its own station.name or mqtt.client_id"
        return why

    def _is_done(self, delivery: Delivery) -> bool:
        if self._stop_at_s is None:
            return False
        return (delivery.idle and not self._to_announce) or time.monotonic() >= self._stop_at_s

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

    def _say_goodbye(self, connection: Connection, delivery: Delivery) -> None:
        until_s = time.monotonic() + _GOODBYE_S
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
        return to_json(
            status_payload(
                online=online,
                timestamp_ms=time.time_ns() // 1_000_000,
                state=state,
                reason=reason,
                session_id=self._station.session_id,
                version=self._station.version,
            )
        )

    def _idle_s(self, delivery: Delivery) -> float:
        due_at_s = min(self._health_at_s, self._checkpoint_at_s, delivery.due_at_s)
        if self._stop_at_s is not None:
            due_at_s = min(due_at_s, self._stop_at_s)
        return due_at_s - time.monotonic()

    def _pause(self, duration_s: float) -> None:
        until_s = time.monotonic() + duration_s
        while self._stop_at_s is None and time.monotonic() < until_s:
            self._checkpoint()
            self._wake.wait(max(0.0, min(until_s, self._checkpoint_at_s) - time.monotonic()))

    def _checkpoint(self) -> None:
        if time.monotonic() >= self._checkpoint_at_s:
            self._outbox.checkpoint()
            self._checkpoint_at_s = time.monotonic() + _CHECKPOINT_EVERY_S

    def _note_up(self) -> None:
        self.connected = True
        self.last_error = None
        self._last_logged = "up"
        log.info("connected to %s, %d records wait", self._settings.address, self.waiting)

    def _note_down(self, situation: str, message: str) -> None:
        """Log a situation once, however many attempts end in it."""
        self.last_error = message
        if situation != self._last_logged:
            self._last_logged = situation
            log.warning("%s", message)
