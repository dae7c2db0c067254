"""The largest packet that a broker takes: announced by it, or seen from what it does.

MQTT 5 brokers announce a limit, or refuse one message with "Packet too large". Others end the connection at a packet
that is too large. That is suspected when the connection breaks while packets are under way that are larger than any
that the broker has taken; afterwards one packet is sent at a time. When it happens again, such packets are not sent.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

_LARGEST_BYTES = 268_435_460  # of MQTT
_CAREFUL_FOR = 200  # packets: more than were under way
_REMEDY = "raise the broker's limit of the packet size (mosquitto: max_packet_size or message_size_limit)"


class Sent(NamedTuple):
    """A packet and its size; subscriptions have no topic."""

    topic: str
    size_bytes: int


class PacketLimit:
    """Lives as long as the client, over all its connections.

    Args:
        trusted_after_s: A limit that only broken connections show is certain when a connection has lasted for longer.
            Two agents with one client id end each other's connections, too, but more often.

    Attributes:
        complaint: What was too large for the broker of this connection; None when everything fitted.
    """

    def __init__(self, trusted_after_s: float = 0.0) -> None:
        self._trusted_after_s = trusted_after_s
        self._trusted_at_s = float("inf")
        self._announced = self._seen = self._goal = _LARGEST_BYTES
        self._is_stated = False
        self._suspect: str | None = None
        self._taken: dict[str, int] = {}
        self._suspicions = 0
        self._careful_for = 0
        self._logged: set[str] = set()
        self.complaint: str | None = None

    @property
    def is_careful(self) -> bool:
        """Whether packets are to be sent one at a time, which shows the one that the broker does not take."""
        return self._careful_for > 0

    @property
    def size_bytes(self) -> int:
        """What is larger is not sent."""
        return min(self._announced, self._seen)

    def note_connection(self, announced: int | None) -> None:
        """A broker has accepted the client."""
        self._announced = announced or _LARGEST_BYTES
        self._trusted_at_s = time.monotonic() + self._trusted_after_s
        self._logged.clear()
        self.complaint = None

    def note_taken(self, packet: Sent) -> None:
        """The broker has taken a packet."""
        self._careful_for = max(0, self._careful_for - 1)
        if not self._careful_for:
            self._suspicions = 0
        if packet.size_bytes > self._taken.get(packet.topic, 0):
            self._taken[packet.topic] = packet.size_bytes

    def note_too_large(self, packet: Sent) -> None:
        """The broker says so of one packet, and keeps the connection."""
        self._seen = self._goal = min(self._seen, packet.size_bytes - 1)
        self._is_stated = True

    def note_loss(self, under_way: Iterable[Sent], *, is_stated: bool) -> str | None:
        """The connection has ended.

        Args:
            under_way: What the broker may not have taken; nothing if another reason for the end is known.
            is_stated: The broker gives too large a packet as the reason.

        Returns:
            Why, if a packet is suspected.
        """
        largest = max(under_way, key=lambda packet: packet.size_bytes, default=Sent("", 0))
        size_bytes = largest.size_bytes
        taken = self._largest_taken
        if taken >= size_bytes or (self._suspicions and not taken):
            self._forget()
            return None
        self._suspicions += 1
        self._careful_for = _CAREFUL_FOR
        if not is_stated and self._suspicions == 1:
            return f"perhaps at a packet of {size_bytes} bytes; the largest that it has surely taken has {taken}"
        self._is_stated = self._is_stated or is_stated
        self._suspect = largest.topic
        # Not one byte less: with packets of about this size each would cost a connection.
        self._seen = size_bytes - 1 - (0 if is_stated else (size_bytes - taken) // 4)
        self._goal = min(self._seen, taken)
        self._suspicions = 0
        return f"it does not take a packet of {size_bytes} bytes; messages are shortened from now on; {_REMEDY}"

    def is_certain(self, topic: str) -> bool:
        """Whether a message above the limit can be given up.

        The broker has said so; or it keeps the connection since, and takes smaller messages of this topic, or of the
        one at which it hung up. Otherwise it may have done that for another reason.
        """
        if self._seen >= self._announced or self._is_stated:
            return True
        return time.monotonic() >= self._trusted_at_s and not {topic, self._suspect}.isdisjoint(self._taken)

    def fitting(
        self, topic: str, payload: bytes, shorter: Iterable[bytes], size: Callable[[bytes], int]
    ) -> bytes | None:
        """The payload, or the first of its shorter forms that fits; None if none does."""
        goal = min(self._announced, self._goal)
        if size(payload) <= goal:
            return payload
        shortest = payload
        for shortest in shorter:
            if size(shortest) <= goal:
                break
        if size(shortest) <= self.size_bytes:
            return shortest
        self._complain(topic, size(payload), size(shortest))
        return None

    @property
    def _largest_taken(self) -> int:
        return max(self._taken.values(), default=0)

    def _complain(self, topic: str, *sizes: int) -> None:
        sizes_text = f"{sizes[0]} bytes" + (f", shortened {sizes[1]}" if sizes[1] < sizes[0] else "")
        self.complaint = f"{topic}: a packet of {sizes_text} is above the broker's limit of {self.size_bytes} bytes"
        if topic not in self._logged:
            self._logged.add(topic)
            log.warning("%s: it is not sent, nor are others like it; %s", self.complaint, _REMEDY)

    def _forget(self) -> None:
        """The broker has gone for another reason: it may come back with another limit."""
        self._seen = self._goal = _LARGEST_BYTES
        self._is_stated = False
        self._taken.clear()
        self._suspicions = self._careful_for = 0


def publish_bytes(topic: str, payload_bytes: int, qos: int, properties_bytes: int) -> int:
    """Size of a PUBLISH, with its fixed header: a byte, and the length of the rest in groups of seven bits."""
    rest = 2 + len(topic.encode()) + 2 * qos + properties_bytes + payload_bytes
    return 1 + -(-rest.bit_length() // 7) + rest
