"""Receive what others publish, whatever the network does; on the caller's thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from agent.backoff import Backoff, BackoffLimits
from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.mqtt.connect import connect

if TYPE_CHECKING:
    from agent.mqtt.connect import BrokerSettings
    from agent.mqtt.connection import Connection, Received

_PACE = BackoffLimits(longest_retry_s=10.0)
"""A person waits at the terminal."""
_IDLE_EVERY_S = 0.25


class Subscriber(Protocol):
    """Receives messages and the state of the connection; all calls come from the thread of `subscribe`."""

    @property
    def is_done(self) -> bool:
        """Whether it needs no more messages."""

    def connected(self) -> None:
        """The broker has accepted the subscription."""

    def disconnected(self, why: str, retry_s: float) -> None:
        """There is no connection; the next attempt is in ``retry_s``."""

    def receive(self, received: Received) -> None:
        """A message."""

    def idle(self) -> None:
        """No more messages just now; comes several times a second."""


def subscribe(settings: BrokerSettings, topic: str, subscriber: Subscriber, pace: BackoffLimits = _PACE) -> None:
    """Pass messages on until the subscriber is done; a lost connection is made again.

    Raises:
        BrokerRefusedError: The broker refuses the first connection. Later refusals are reported, and tried again.
    """
    backoff = Backoff(pace)
    was_connected = False
    while not subscriber.is_done:
        began_s = time.monotonic()
        try:
            why = _receive(connect(settings, None), topic, subscriber)
            was_connected = True
        except BrokerUnreachableError as error:
            why = error.what
        except BrokerRefusedError as error:
            if not was_connected:
                raise
            why = error.what
        backoff.note_connection(time.monotonic() - began_s)
        _wait(why, backoff.next_s(), subscriber)


def _receive(connection: Connection, topic: str, subscriber: Subscriber) -> str:
    """Until the connection is lost or the subscriber done; returns why it was lost."""
    try:
        subscription = connection.subscribe(topic, qos=1)
        while connection.lost is None and not subscriber.is_done:
            for acknowledgement in connection.service(_IDLE_EVERY_S):
                if acknowledgement.refused is not None:
                    raise BrokerRefusedError(
                        what=f"the broker refuses the subscription to {topic}: {acknowledgement.refused}",
                        remedy="give this user the right to read there, or name other topics",
                        reason=acknowledgement.refused,
                    )
                if acknowledgement.mid == subscription:
                    subscriber.connected()
            for received in connection.take_received():
                if not subscriber.is_done:
                    subscriber.receive(received)
            subscriber.idle()
    finally:
        connection.close()
    return f"the connection was lost: {connection.lost}"


def _wait(why: str, wait_s: float, subscriber: Subscriber) -> None:
    until_s = time.monotonic() + wait_s
    while not subscriber.is_done and (left_s := until_s - time.monotonic()) > 0:
        subscriber.disconnected(why, left_s)
        subscriber.idle()
        time.sleep(min(_IDLE_EVERY_S, left_s))
