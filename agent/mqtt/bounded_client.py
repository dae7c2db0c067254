"""A paho client that bounds the memory of what it receives, reports answers to pings, and reads every PUBACK."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paho.mqtt.client import Client, MQTTv5

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from paho.mqtt.enums import MQTTErrorCode

LARGEST_RECEIVED_BYTES = 128 * 1024
"""Room for a command of 64 KiB; with MQTT 5 the broker is asked to send nothing larger."""
_CHUNK_BYTES = 64 * 1024
_PUBACK_REASONS = {0, 16, 128, 131, 135, 144, 145, 151, 153}
_SOME_OTHER_ERROR, _PACKET_TOO_LARGE = 131, 149


class BoundedClient(Client):
    """Keeps the beginning of a packet that is too large, and throws the rest away while it is read.

    The beginning has topic and message number, so the broker gets its acknowledgement, and the receiver sees a message
    that is longer than any it accepts. Without MQTT 5 nothing else keeps brokers from sending such packets.

    Attributes:
        on_pingresp: Called with each answer to a ping.
        on_too_large: Called with the number of a message that the broker refuses as too large, before ``on_publish``.
    """

    on_pingresp: Callable[[], object] = staticmethod(lambda: None)
    on_too_large: Callable[[int], object] = staticmethod(lambda _: None)

    def ping(self) -> None:
        """Send a ping; paho itself has no public way."""
        self._send_pingreq()

    def _sock_recv(self, bufsize: int) -> bytes:
        """As in the base class, which asks for all that is missing of a packet."""
        kept = len(self._in_packet["packet"])
        excess = kept + bufsize - LARGEST_RECEIVED_BYTES
        if excess <= 0:
            return super()._sock_recv(bufsize)
        if kept < LARGEST_RECEIVED_BYTES - _CHUNK_BYTES:
            return super()._sock_recv(LARGEST_RECEIVED_BYTES - _CHUNK_BYTES - kept)
        thrown_away = super()._sock_recv(min(excess, _CHUNK_BYTES))
        if not thrown_away:
            return thrown_away  # the end of the connection
        self._in_packet["to_process"] -= len(thrown_away)
        raise BlockingIOError  # for the base class: there is nothing more to read now

    def _handle_pingresp(self) -> MQTTErrorCode:
        self.on_pingresp()
        return super()._handle_pingresp()

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        """As in the base class, which would end the connection at a reason that MQTT 5 has for other packets only.

        Mosquitto refuses with "packet too large" what is above its message_size_limit.
        """
        packet = self._in_packet["packet"]
        if self._protocol == MQTTv5 and cmd == "PUBACK" and len(packet) > 2 and packet[2] not in _PUBACK_REASONS:  # noqa: PLR2004 - number, reason
            if packet[2] == _PACKET_TOO_LARGE:
                self.on_too_large(int.from_bytes(packet[:2], "big"))
            packet[2] = _SOME_OTHER_ERROR
        return super()._handle_pubackcomp(cmd)
