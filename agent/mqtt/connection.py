"""One MQTT connection: a thin layer over a paho client.

Everything happens on the caller's thread, inside `Connection.service`.
"""

from __future__ import annotations

import select
import ssl
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.mqtt.packet_limit import PacketLimit, Sent, publish_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from agent.mqtt.bounded_client import BoundedClient
    from agent.mqtt.wakeup import Wakeup

# What the packet decoders of paho raise when the other end does not speak MQTT.
_GARBAGE = (ValueError, LookupError, AssertionError, struct.error)
_DEFAULT_RECEIVE_MAXIMUM = 65_535  # MQTT 5, 3.2.2.3.3
_TOO_LARGE = "Packet too large"  # MQTT 5, reason code 149
_BROKEN = "the connection broke"


class Acknowledgement(NamedTuple):
    """The broker's answer to a message of QoS 1 or a subscription.

    ``refused`` is None or the reason of a refusal; that of a message begins with its topic. One that is too large may
    fit in a shorter form.
    """

    mid: int
    refused: str | None
    is_too_large: bool = False


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
        limit: The largest packet that it takes.
    """

    def __init__(self, client: BoundedClient, keepalive_s: float, limit: PacketLimit) -> None:
        self.limit = limit
        self.keepalive_s = keepalive_s
        self.lost: str | None = None
        self.receive_maximum = _DEFAULT_RECEIVE_MAXIMUM
        self.refusal: str | None = None
        self.accepted = False
        self._client = client
        self._ping_at_s = float("inf")
        self._is_pinged = False
        self._unacknowledged: dict[int, str] = {}
        self._under_way: dict[int, Sent] = {}  # in the order in which the broker takes them
        self._pinged: deque[int] = deque()
        self._too_large: set[int] = set()
        self._acknowledgements: list[Acknowledgement] = []
        self._received: list[Received] = []
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_pingresp = self._on_pingresp
        client.on_too_large = self._too_large.add

    @property
    def room(self) -> int:
        """How many messages of QoS 1 may be published now."""
        if self.limit.is_careful:
            return 0 if self._under_way else 1
        return self.receive_maximum - len(self._unacknowledged)

    def publish(  # noqa: PLR0913 - as paho's, and what fits instead
        self,
        topic: str,
        payload: str | bytes,
        *,
        qos: Literal[0, 1],
        retain: bool,
        expires_s: int | None = None,
        shorter: Iterable[str | bytes] = (),
    ) -> int | None:
        """Hand a message to the socket, without waiting.

        Args:
            topic: Topic to publish on.
            payload: Content.
            qos: 0 or 1.
            retain: The broker keeps it.
            expires_s: After this time the broker no longer delivers the message; not with MQTT 3.1.1.
            shorter: Shorter and shorter forms of the content, for a broker that does not take it whole.

        Returns:
            Message number, which comes back in an `Acknowledgement` if ``qos`` is 1; None when the message is larger
            than the broker takes, and was not sent.
        """
        properties: Properties | None = None
        if expires_s is not None and self._is_mqtt_5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expires_s
        properties_bytes = len(properties.pack()) if properties else int(self._is_mqtt_5)  # type: ignore[no-untyped-call]

        def size(content: bytes) -> int:
            return publish_bytes(topic, len(content), qos, properties_bytes)

        content = self.limit.fitting(topic, _bytes(payload), map(_bytes, shorter), size)
        if content is None:
            return None
        mid = self._client.publish(topic, content, qos=qos, retain=retain, properties=properties).mid
        if qos:
            self._unacknowledged[mid] = topic
        self._under_way[mid] = Sent(topic, size(content))
        if not qos and self.limit.is_careful:
            self._ping()  # whose answer shows that the broker has taken it
        return mid

    def subscribe(self, topic: str, qos: Literal[0, 1]) -> int:
        """Subscribe to a topic, without waiting; doing it again changes nothing.

        Returns:
            Message number, which comes back in an `Acknowledgement`; 0 when the connection is lost.
        """
        if self._is_mqtt_5:
            # Retain as published: a message that is retained while this client is connected says so, too.
            mid = self._client.subscribe(topic, options=SubscribeOptions(qos, retainAsPublished=True))[1]
        else:
            mid = self._client.subscribe(topic, qos)[1]
        if mid:
            self._under_way[mid] = Sent("", len(topic))
        return mid or 0

    @property
    def suspects(self) -> list[Sent]:
        """What may have ended the connection by its size: nothing while it lives, or where another reason is known."""
        return list(self._under_way.values()) if self.lost == _BROKEN or self.is_at_limit else []

    @property
    def is_at_limit(self) -> bool:
        """The broker has ended the connection because of too large a packet, and said so."""
        return self.lost == _TOO_LARGE

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
        self._ping()

    def _ping(self) -> None:
        self._ping_at_s = time.monotonic() + self.keepalive_s / 2
        self._is_pinged = True
        self._pinged.append(next(reversed(self._under_way), 0))
        # paho's own pings, in `loop_misc`, come after a whole keepalive time of silence and wait as long again.
        self._client.ping()

    def _on_pingresp(self) -> None:
        if self._pinged:
            self._note_taken(self._pinged.popleft())

    def _note_taken(self, mid: int, *, is_refused: bool = False) -> None:
        """The broker has taken a packet, and with it all before, or refuses this one."""
        if mid not in self._under_way:
            return
        for each in list(self._under_way):
            packet = self._under_way.pop(each)
            if each != mid or not is_refused:
                self.limit.note_taken(packet)
            elif mid in self._too_large:
                self.limit.note_too_large(packet)
            if each == mid:
                return

    def _on_connect(self, _client: Client, _data: object, _flags: object, code: ReasonCode, properties: object) -> None:
        if code.is_failure:
            self.refusal = str(code)
            return
        self.accepted = True
        self.receive_maximum = getattr(properties, "ReceiveMaximum", _DEFAULT_RECEIVE_MAXIMUM)
        self.limit.note_connection(getattr(properties, "MaximumPacketSize", None))
        self.keepalive_s = min(self.keepalive_s, getattr(properties, "ServerKeepAlive", 0) or self.keepalive_s)
        self._ping_at_s = time.monotonic() + self.keepalive_s / 2

    def _on_publish(self, _client: Client, _data: object, mid: int, code: ReasonCode, _properties: Properties) -> None:
        topic = self._unacknowledged.pop(mid, None)
        if topic is not None:  # paho reports QoS 0 here, too
            refused = f"{topic}: {code}" if code.is_failure else None
            self._note_taken(mid, is_refused=code.is_failure)
            self._acknowledgements.append(Acknowledgement(mid, refused, is_too_large=mid in self._too_large))
            self._too_large.discard(mid)

    def _on_subscribe(
        self, _client: Client, _data: object, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._note_taken(mid)
        refused = next((str(code) for code in codes if code.is_failure), None)
        self._acknowledgements.append(Acknowledgement(mid, refused))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._received.append(Received(message.topic, bytes(message.payload), message.retain))

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        self.lost = self.lost or (_BROKEN if code == "Unspecified error" else str(code))

    @property
    def _is_mqtt_5(self) -> bool:
        return self._client.protocol == MQTTProtocolVersion.MQTTv5


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
