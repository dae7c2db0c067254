"""Hear what others publish, through whatever the network does; on the caller's thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from agent.backoff import Backoff, BackoffLimits
from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.mqtt.connect import connect

if TYPE_CHECKING:
    from agent.mqtt.connect import BrokerSettings
    from agent.mqtt.connection import Connection, Received

FOLLOWING = BackoffLimits(longest_retry_s=10.0)
"""Somebody sits before it and waits."""
_REST_S = 0.25


class Follower(Protocol):
    """Who is told; all calls come from the thread that follows."""

    @property
    def is_done(self) -> bool:
        """Whether it has heard enough."""

    def up(self) -> None:
        """We are connected, and the broker sends what we asked for."""

    def down(self, why: str, retry_s: float) -> None:
        """We are not connected; the next attempt is in ``retry_s``."""

    def hear(self, received: Received) -> None:
        """A message."""

    def rest(self) -> None:
        """Nothing more to hear just now; comes several times a second."""


def follow(settings: BrokerSettings, topic: str, follower: Follower, pace: BackoffLimits = FOLLOWING) -> None:
    """Listen until the follower is done; a line that is lost is made again.

    Args:
        settings: Of the broker.
        topic: May hold wildcards.
        follower: Who is told.
        pace: How fast it is made again.

    Raises:
        BrokerRefusedError: The broker did not want us from the beginning; later this is only told, and tried again.
    """
    backoff = Backoff(pace)
    was_up = False
    while not follower.is_done:
        began_s = time.monotonic()
        try:
            why = _listen(connect(settings, None), topic, follower)
            was_up = True
        except BrokerUnreachableError as error:
            why = error.what
        except BrokerRefusedError as error:
            if not was_up:
                raise
            why = error.what
        backoff.note_connection(time.monotonic() - began_s)
        _wait(why, backoff.next_s(), follower)


def _listen(connection: Connection, topic: str, follower: Follower) -> str:
    """Until the line is lost, or the follower done; returns why it was lost."""
    try:
        subscription = connection.subscribe(topic, qos=1)
        while connection.lost is None and not follower.is_done:
            for acknowledgement in connection.service(_REST_S):
                if acknowledgement.refused is not None:
                    raise BrokerRefusedError(
                        what=f"the broker does not let us hear {topic}: {acknowledgement.refused}",
                        remedy="give this user the right to read there, or name other topics",
                        reason=acknowledgement.refused,
                    )
                if acknowledgement.mid == subscription:
                    follower.up()
            for received in connection.take_received():
                if not follower.is_done:
                    follower.hear(received)
            follower.rest()
    finally:
        connection.close()
    return f"the connection was lost: {connection.lost}"


def _wait(why: str, wait_s: float, follower: Follower) -> None:
    until_s = time.monotonic() + wait_s
    while not follower.is_done and (left_s := until_s - time.monotonic()) > 0:
        follower.down(why, left_s)
        follower.rest()
        time.sleep(min(_REST_S, left_s))
