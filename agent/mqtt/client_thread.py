"""What speaks to a broker: one connection after the other, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from agent.backoff import Backoff
from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.mqtt.connect import connect
from agent.mqtt.wakeup import Wakeup

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent.backoff import BackoffLimits
    from agent.mqtt.connect import BrokerSettings, Will
    from agent.mqtt.connection import Connection
    from agent.outbox.outbox import Outbox

log = logging.getLogger(__name__)

GOODBYE_S = 0.5
_CHECKPOINT_EVERY_S = 5.0
_MEND_EVERY_S = 0.5
_SUSPICIOUSLY_SHORT_S = 10.0


class BrokerClient(ABC):
    """Keeps a line to the broker up from ``start`` to ``stop``; a context manager over both.

    Whoever derives from it says what to do with each connection (`_use`), and what the broker publishes when one
    dies (`_will`).

    Args:
        settings: Of the broker.
        outbox: What waits; it is checkpointed here, also while there is no line.
        pace: How fast.
        name: Of the thread.

    Attributes:
        connected: The broker has accepted us and the line lives.
        published: Records that the broker has and the outbox has forgotten.
        last_error: Why we are not connected, or what the broker last refused; None when all is well.
    """

    def __init__(self, settings: BrokerSettings, outbox: Outbox, pace: BackoffLimits, name: str) -> None:
        self.connected = False
        self.published = 0
        self.last_error: str | None = None
        self._settings = settings
        self._outbox = outbox
        self._pace = pace
        self._backoff = Backoff(pace)
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
        """Start the thread; returns before there is a line."""
        self._thread.start()

    def wake(self) -> None:
        """A record was put: look now. From any thread, costs about a microsecond."""
        self._wake.set()

    def ask_to_stop(self, deadline_s: float) -> float:
        """Begin to stop, without waiting for it: several speakers may say goodbye at the same time.

        Returns:
            When it publishes the last record, on the monotonic clock; an earlier call's deadline stands.
        """
        stop_at_s = time.monotonic() + deadline_s if self._stop_at_s is None else self._stop_at_s
        self._stop_at_s = stop_at_s
        self._wake.set()
        return stop_at_s

    def stop(self, deadline_s: float = 1.0) -> None:
        """Publish what the deadline allows, say goodbye, and end the thread; what is left waits in the outbox.

        Returns at most a second after the deadline, even while an attempt to connect hangs; the thread then ends
        with that attempt and does not touch the outbox again.
        """
        stop_at_s = self.ask_to_stop(deadline_s)
        self._thread.join(max(0.0, stop_at_s + 2 * GOODBYE_S - time.monotonic()))
        if not self._thread.is_alive():
            self._wake.close()

    @abstractmethod
    def _will(self) -> Will:
        """What the broker publishes when the connection that is made now dies."""

    @abstractmethod
    def _use(self, connection: Connection) -> None:
        """Speak until the line is lost or there is nothing more to say, and say goodbye."""

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
            self._note_down(f"refused: {error.reason}", error.one_line)
            return self._pace.refused_retry_s
        except BrokerUnreachableError as error:
            self._note_down("down", error.one_line)
            return self._backoff.next_s()
        if self._stop_at_s is None or time.monotonic() < self._stop_at_s:
            self._live(connection)
        connection.close()
        return self._backoff.next_s()

    def _live(self, connection: Connection) -> None:
        began_s = time.monotonic()
        self._note_up()
        self._use(connection)
        self.connected = False
        if connection.lost is not None:
            self._note_down("down", self._why_lost(connection, time.monotonic() - began_s))
        self._backoff.note_connection(time.monotonic() - began_s)

    def _why_lost(self, connection: Connection, lasted_s: float) -> str:
        why = f"connection to {self._settings.address} lost: {connection.lost}; records wait meanwhile"
        if lasted_s < _SUSPICIOUSLY_SHORT_S:
            # A broker ends the older of two connections with one client id, and most do so without a word.
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
        """When the next is due: soon when results are lost meanwhile, because its log may just need to begin anew."""
        return self._checkpointed_at_s + (_CHECKPOINT_EVERY_S if self._outbox.fault is None else _MEND_EVERY_S)

    def _checkpoint(self) -> None:
        if time.monotonic() >= self._checkpoint_at_s:
            self._outbox.checkpoint()
            self._checkpointed_at_s = time.monotonic()

    def _note_up(self) -> None:
        self.connected = True
        self.last_error = None
        self._last_logged = "up"
        log.info(
            "connected to %s as %s, %d records wait", self._settings.address, self._settings.client_id, self.waiting
        )

    def _note_down(self, situation: str, message: str) -> None:
        """Log a situation once, however many attempts end in it."""
        self.last_error = message
        if situation != self._last_logged:
            self._last_logged = situation
            log.warning("%s", message)
