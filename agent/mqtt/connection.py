"""One MQTT connection: a thin layer over a paho client.

Everything happens on the caller's thread, inside `Connection.service`.
"""

from __future__ import annotations

import select
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from agent.mqtt.wakeup import Wakeup

# What the packet decoders of paho raise when the other end does not speak MQTT.
_GARBAGE = (ValueError, LookupError, AssertionError, struct.error)
_DEFAULT_RECEIVE_MAXIMUM = 65_535  # MQTT 5, 3.2.2.3.3


class Acknowledgement(NamedTuple):
    """The broker's answer to a message of QoS 1 or a subscription.

    ``refused`` is None or the reason of a refusal; that of a message begins with its topic.
    """

    mid: int
    refused: str | None


class Received(NamedTuple):
    """A message of a subscribed topic.

    Attributes:
        retained: The broker keeps it. In MQTT 3.1.1 this shows only if it was published before the subscription.
    """

    topic: str
    payload: bytes
    retained: bool


class Connection:
    """An open connection to the broker, made by `connect`; all calls from one thread.

    Attributes:
        accepted: The broker has accepted the client.
        keepalive_s: When the broker is silent, the connection is lost after this time at the latest.
        refusal: Why the broker refuses the client; None while it does not.
        lost: Why the connection is lost; None while it is alive. A lost one stays lost.
        receive_maximum: How many unacknowledged messages of QoS 1 the broker takes.
    """

    def __init__(self, client: Client, keepalive_s: float) -> None:
        self.keepalive_s = keepalive_s
        self.lost: str | None = None
        self.receive_maximum = _DEFAULT_RECEIVE_MAXIMUM
        self.refusal: str | None = None
        self.accepted = False
        self._client = client
        self._ping_at_s = float("inf")
        self._is_pinged = False
        self._unacknowledged: dict[int, str] = {}
        self._acknowledgements: list[Acknowledgement] = []
        self._received: list[Received] = []
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect

    @property
    def room(self) -> int:
        """How many messages of QoS 1 may be published now."""
        return self.receive_maximum - len(self._unacknowledged)

    def publish(
        self, topic: str, payload: str | bytes, *, qos: Literal[0, 1], retain: bool, expires_s: int | None = None
    ) -> int:
        """Hand a message to the socket, without waiting.

        MQTT 3.1.1 ignores ``expires_s``, after which the broker no longer delivers the message.

        Returns:
            Message number, which comes back in an `Acknowledgement` if ``qos`` is 1.
        """
        properties = None
        if expires_s is not None and self._client.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expires_s
        mid = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties).mid
        if qos:
            self._unacknowledged[mid] = topic
        return mid

    def subscribe(self, topic: str, qos: Literal[0, 1]) -> int:
        """Subscribe to a topic, without waiting; doing it again changes nothing.

        Returns:
            Message number, which comes back in an `Acknowledgement`; 0 when the connection is lost.
        """
        if self._client.protocol == MQTTProtocolVersion.MQTTv5:
            # Retain as published: a message that is retained while this client is connected says so, too.
            options = SubscribeOptions(qos, retainAsPublished=True)
            return self._client.subscribe(topic, options=options)[1] or 0
        return self._client.subscribe(topic, qos)[1] or 0

    def take_received(self) -> list[Received]:
        """Messages since the last call, in order."""
        received, self._received = self._received, []
        return received

    def service(self, timeout_s: float, wake: Wakeup | None = None) -> list[Acknowledgement]:
        """Wait for traffic, ``wake`` or the time-out, then send, receive and keep alive.

        Returns:
            What the broker acknowledged, in its order.
        """
        sock: Any = self._client.socket()
        if self.lost is not None or sock is None:
            self.drop("the socket was closed")
            return []
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if wake is not None:
            poll.register(wake, select.POLLIN)
        # Bytes that TLS has decrypted already don't make the socket readable.
        has_bytes = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        idle_s = max(0.0, min(timeout_s, self._ping_at_s - time.monotonic()))
        ready = dict(poll.poll(0 if has_bytes else idle_s * 1000))
        if wake is not None and wake.fileno() in ready:
            wake.clear()
        events = ready.get(sock.fileno(), 0)
        self._handle(readable=has_bytes or bool(events & ~select.POLLOUT), writable=bool(events & select.POLLOUT))
        acknowledgements, self._acknowledgements = self._acknowledgements, []
        return acknowledgements

    def drop(self, reason: str) -> None:
        """Close without a disconnect, so that the broker publishes the will."""
        self.lost = self.lost or reason
        sock: Any = self._client.socket()
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Disconnect, so that the broker forgets the will, and close."""
        if self.lost is None:
            self._client.disconnect()
        self.drop("closed by this side")

    def _handle(self, *, readable: bool, writable: bool) -> None:
        try:
            if writable:
                self._client.loop_write()
            if readable:
                self._is_pinged = False
                self._client.loop_read()
        except _GARBAGE as error:
            self.drop(f"the other end does not speak MQTT: {error!r}")
            return
        if self._client.socket() is None:
            self.drop("the socket was closed")
        elif time.monotonic() >= self._ping_at_s:
            self._ping_or_drop()

    def _ping_or_drop(self) -> None:
        """Every half keepalive time: give up if nothing came since the last ping, else send the next."""
        if self._is_pinged:
            self.drop(f"the broker has sent nothing for {self.keepalive_s / 2:g} s")
            return
        self._ping_at_s = time.monotonic() + self.keepalive_s / 2
        self._is_pinged = True
        # Its own pings, in `loop_misc`, come after a whole keepalive time of silence and wait as long again.
        self._client._send_pingreq()  # noqa: SLF001 - paho has no public way to ping

    def _on_connect(self, _client: Client, _data: object, _flags: object, code: ReasonCode, properties: object) -> None:
        if code.is_failure:
            self.refusal = str(code)
            return
        self.accepted = True
        self.receive_maximum = getattr(properties, "ReceiveMaximum", _DEFAULT_RECEIVE_MAXIMUM)
        self.keepalive_s = min(self.keepalive_s, getattr(properties, "ServerKeepAlive", 0) or self.keepalive_s)
        self._ping_at_s = time.monotonic() + self.keepalive_s / 2

    def _on_publish(self, _client: Client, _data: object, mid: int, code: ReasonCode, _properties: Properties) -> None:
        topic = self._unacknowledged.pop(mid, None)
        if topic is not None:  # paho reports QoS 0 here, too
            self._acknowledgements.append(Acknowledgement(mid, f"{topic}: {code}" if code.is_failure else None))

    def _on_subscribe(
        self, _client: Client, _data: object, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refused = next((str(code) for code in codes if code.is_failure), None)
        self._acknowledgements.append(Acknowledgement(mid, refused))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._received.append(Received(message.topic, bytes(message.payload), message.retain))

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        self.lost = self.lost or ("the connection broke" if code == "Unspecified error" else str(code))
