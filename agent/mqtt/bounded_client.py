"""A paho client that bounds the memory of what it receives."""

from __future__ import annotations

from paho.mqtt.client import Client

LARGEST_RECEIVED_BYTES = 128 * 1024
"""Room for a command of 64 KiB; with MQTT 5 the broker is asked to send nothing larger."""
_CHUNK_BYTES = 64 * 1024


class BoundedClient(Client):
    """Keeps the beginning of a packet that is too large, and throws the rest away while it is read.

    The beginning has topic and message number, so the broker gets its acknowledgement, and the receiver sees a message
    that is longer than any it accepts. Without MQTT 5 nothing else keeps brokers from sending such packets.
    """

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
