"""A thread that keeps a connection to the broker: one after the other, from start to stop."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from agent.backoff import Backoff
from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.mqtt.connect import connect
from agent.mqtt.packet_limit import PacketLimit
from agent.mqtt.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.backoff import BackoffLimits
    from agent.mqtt.connect import BrokerSettings, Will
    from agent.mqtt.connection import Acknowledgement, Connection
    from agent.outbox.outbox import Outbox

log = logging.getLogger(__name__)

_GOODBYE_S = 0.5
_CHECKPOINT_EVERY_S = 5.0
_RECOVERY_EVERY_S = 0.5
_SUSPICIOUSLY_SHORT_S = 10.0


class BrokerClient(ABC):
    """Keeps a connection to the broker from ``start`` to ``stop``; a context manager over both.

    It also makes the checkpoints of the outbox.

    Attributes:
        connected: The broker has accepted the client, and the connection is alive.
        published: Records that the broker has and the outbox has forgotten.
        last_error: Why there is no connection, or what the broker last refused; None when all is well.
    """

    def __init__(self, settings: BrokerSettings, outbox: Outbox, pace: BackoffLimits, name: str) -> None:
        self.connected = False
        self.published = 0
        self.last_error: str | None = None
        self._settings = settings
        self._outbox = outbox
        self._pace = pace
        self._backoff = Backoff(pace)
        self._limit = PacketLimit(trusted_after_s=1.2 * pace.longest_retry_s)
        self._wake = Wakeup()
        self._stop_at_s: float | None = None
        self._checkpointed_at_s = float("-inf")
        self._last_logged = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

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
        """Start the thread, without waiting for a connection."""
        self._thread.start()

    def wake(self) -> None:
        """Handle a new record now. From any thread, costs about a microsecond."""
        self._wake.set()

    def ask_to_stop(self, deadline_s: float) -> float:
        """Begin to stop, without waiting for it: several clients can stop at the same time.

        Returns:
            When it publishes the last record, on the monotonic clock; an earlier call's deadline stands.
        """
        stop_at_s = time.monotonic() + deadline_s if self._stop_at_s is None else self._stop_at_s
        self._stop_at_s = stop_at_s
        self._wake.set()
        return stop_at_s

    def stop(self, deadline_s: float = 1.0) -> None:
        """Publish what the deadline allows, disconnect, and end the thread; the rest waits in the outbox.

        Returns at most a second after the deadline, even while an attempt to connect hangs; the thread then ends
        with that attempt and does not touch the outbox again.
        """
        stop_at_s = self.ask_to_stop(deadline_s)
        self._thread.join(max(0.0, stop_at_s + 2 * _GOODBYE_S - time.monotonic()))
        if not self._thread.is_alive():
            self._wake.close()

    @abstractmethod
    def _will(self) -> Will:
        """What the broker publishes when the connection that is made now dies."""

    @abstractmethod
    def _serve(self, connection: Connection) -> None:
        """Publish until the connection is lost or there is nothing left to publish before a stop."""

    def _publish_last(
        self, connection: Connection, publish: Callable[[], int | None], settle: Callable[[list[Acknowledgement]], int]
    ) -> None:
        """Publish a last message, and wait a moment for its acknowledgement and those of records."""
        until_s = time.monotonic() + _GOODBYE_S
        mid: int | None = None
        while connection.lost is None and time.monotonic() < until_s:
            if mid is None and connection.room > 0:
                mid = publish()
                if mid is None:  # too large: nothing to wait for
                    return
            acknowledgements = connection.service(until_s - time.monotonic())
            self.published += settle(acknowledgements)
            if any(acknowledgement.mid == mid for acknowledgement in acknowledgements):
                return

    def _idle_s(self, *due_at_s: float) -> float:
        """How long nothing is due, in seconds; the arguments are on the monotonic clock."""
        stop_at_s = float("inf") if self._stop_at_s is None else self._stop_at_s
        return min(self._checkpoint_at_s, stop_at_s, *due_at_s) - time.monotonic()

    @property
    def _is_stop_due(self) -> bool:
        return self._stop_at_s is not None and time.monotonic() >= self._stop_at_s

    def _run(self) -> None:
        try:
            self._pause(self._attempt())  # even after `ask_to_stop`: a short run has something to publish, too
            while self._stop_at_s is None:
                self._pause(self._attempt())
        finally:
            self.connected = False

    def _attempt(self) -> float:
        """One connection from beginning to end; returns how long to wait before the next, in seconds."""
        try:
            connection = connect(self._settings, self._will(), self._limit)
        except BrokerRefusedError as error:
            self._note_down(f"refused: {error.reason}", error.one_line)
            return self._pace.refused_retry_s
        except BrokerUnreachableError as error:
            self._note_down("down", error.one_line)
            return self._backoff.next_s()
        if not self._is_stop_due:
            began_s = time.monotonic()
            self.connected, self.last_error, self._last_logged = True, None, "up"
            settings = self._settings
            log.info("connected to %s as %s, %d records wait", settings.address, settings.client_id, self.waiting)
            self._serve(connection)
            self.connected = False
            lasted_s = time.monotonic() - began_s
            if connection.lost is not None:
                suspicion = self._limit.note_loss(connection.suspects, is_stated=connection.is_at_limit)
                self._note_down("down", self._why_lost(connection, lasted_s, suspicion))
            self._backoff.note_connection(lasted_s)
        connection.close()
        return self._backoff.next_s()

    def _why_lost(self, connection: Connection, lasted_s: float, suspicion: str | None) -> str:
        why = f"connection to {self._settings.address} lost: {connection.lost}; records wait meanwhile"
        if suspicion is not None:
            why += f"; {suspicion}"
        elif lasted_s < _SUSPICIOUSLY_SHORT_S:
            # A broker ends the older of two connections with one client id, and most do so silently.
            why += f"; if it happens again and again, another agent has the client id {self._settings.client_id!r}: "
            why += "give each its own station.name or mqtt.client_id"
        return why

    def _pause(self, duration_s: float) -> None:
        until_s = time.monotonic() + duration_s
        while self._stop_at_s is None and time.monotonic() < until_s:
            self._checkpoint()
            self._wake.wait(max(0.0, min(until_s, self._checkpoint_at_s) - time.monotonic()))

    @property
    def _checkpoint_at_s(self) -> float:
        """When the next one is due: soon while results are lost, since it may be all that the outbox needs."""
        return self._checkpointed_at_s + (_CHECKPOINT_EVERY_S if self._outbox.fault is None else _RECOVERY_EVERY_S)

    def _checkpoint(self) -> None:
        if time.monotonic() >= self._checkpoint_at_s:
            self._outbox.checkpoint()
            self._checkpointed_at_s = time.monotonic()

    def _note_down(self, situation: str, message: str) -> None:
        """Log a situation once, however many attempts end in it."""
        self.last_error = message
        if situation != self._last_logged:
            self._last_logged = situation
            log.warning("%s", message)
