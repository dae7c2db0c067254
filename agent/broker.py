"""One MQTT connection at a time: a thin layer over paho that hides nothing and remembers nothing.

Each connection is a new paho client. paho queues what it cannot send, renumbers it and sends it again after a
reconnect of its own; here the outbox is the only queue, so a connection that is lost takes all its state with it.

Everything happens on the caller's thread, inside `Connection.service`: there is no second thread to agree with.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from agent.errors import BrokerRefusedError, BrokerUnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from paho.mqtt.client import MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from agent.wake import Wake

Protocol: TypeAlias = Literal["3.1.1", "5"]

# What paho raises from its packet decoders when the other end does not speak MQTT.
_GARBAGE = (ValueError, LookupError, AssertionError, struct.error)
_RECEIVE_MAXIMUM_WITHOUT_A_WORD = 65_535  # MQTT 5, 3.2.2.3.3


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Where the broker is and who we are.

    Attributes:
        keepalive_s: A silent broker is given up after at most twice this time.
        connect_timeout_s: For each of: the TCP connection, the TLS handshake, the broker's answer.
        tls: Encrypt, and verify the broker's certificate and name.
        ca_file: Certificates to trust; None takes those of the operating system.
        certificate_file: Our own certificate, where the broker asks for one.
        key_file: The key to ``certificate_file``.
    """

    host: str
    client_id: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: Protocol = "5"
    keepalive_s: int = 15
    connect_timeout_s: float = 5.0
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @property
    def address(self) -> str:
        """As it stands in messages."""
        return f"{self.host}:{self.port}"


class Will(NamedTuple):
    """What the broker publishes when we vanish without a word."""

    topic: str
    payload: str | bytes
    retain: bool = True


class Acknowledgement(NamedTuple):
    """The broker's answer to a message of QoS 1 or a subscription; ``refused`` is its reason when it said no."""

    mid: int
    refused: str | None


class Received(NamedTuple):
    """A message of a topic we subscribed to; ``retained`` if it was said before we asked."""

    topic: str
    payload: bytes
    retained: bool


class Connection:
    """An open line to the broker, made by `connect`; all calls from one thread.

    Attributes:
        accepted: The broker has accepted us.
        lost: Why the line is dead; None while it lives. A dead one stays dead: make another.
        receive_maximum: How many messages of QoS 1 the broker takes without having acknowledged any.
    """

    def __init__(self, client: Client) -> None:
        self.lost: str | None = None
        self.receive_maximum = _RECEIVE_MAXIMUM_WITHOUT_A_WORD
        self._refusal: str | None = None
        self.accepted = False
        self._client = client
        self._unacknowledged: set[int] = set()
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

    def publish(self, topic: str, payload: str | bytes, *, qos: Literal[0, 1], retain: bool) -> int:
        """Hand a message to the socket, without waiting.

        Returns:
            Its number, which comes back in an `Acknowledgement` if ``qos`` is 1.
        """
        mid = self._client.publish(topic, payload, qos=qos, retain=retain).mid
        if qos:
            self._unacknowledged.add(mid)
        return mid

    def subscribe(self, topic: str, qos: Literal[0, 1]) -> int:
        """Ask for the messages of a topic, without waiting; to ask again changes nothing.

        Returns:
            Its number, which comes back in an `Acknowledgement`; 0 when the line is dead.
        """
        return self._client.subscribe(topic, qos)[1] or 0

    def take_received(self) -> list[Received]:
        """What came since the last call, in order."""
        received, self._received = self._received, []
        return received

    def service(self, timeout_s: float, wake: Wake | None = None) -> list[Acknowledgement]:
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
        ready = dict(poll.poll(0 if has_bytes else max(0.0, timeout_s) * 1000))
        if wake is not None and wake.fileno() in ready:
            wake.clear()
        events = ready.get(sock.fileno(), 0)
        self._handle(readable=has_bytes or bool(events & ~select.POLLOUT), writable=bool(events & select.POLLOUT))
        acknowledgements, self._acknowledgements = self._acknowledgements, []
        return acknowledgements

    def drop(self, reason: str) -> None:
        """Give the line up without a word, so that the broker publishes the will."""
        self.lost = self.lost or reason
        sock: Any = self._client.socket()
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Say goodbye, so that the broker forgets the will, and close."""
        if self.lost is None:
            self._client.disconnect()
        self.drop("closed by this side")

    def wait_until_accepted(self, settings: BrokerSettings) -> None:
        """Serve the line until the broker accepts it; `connect` calls this."""
        deadline_s = time.monotonic() + settings.connect_timeout_s
        while not self.accepted:
            if self._refusal is not None:
                raise BrokerRefusedError(
                    what=f"the broker {settings.address} refuses us as {settings.client_id!r}: {self._refusal}",
                    remedy="mend user, password or access rights, here or at the broker",
                    reason=self._refusal,
                )
            remaining_s = deadline_s - time.monotonic()
            if self.lost is not None or remaining_s <= 0:
                raise _unreachable(settings, self.lost or f"no answer within {settings.connect_timeout_s:g} s")
            self.service(remaining_s)

    def _handle(self, *, readable: bool, writable: bool) -> None:
        try:
            if writable:
                self._client.loop_write()
            if readable:
                self._client.loop_read()
        except _GARBAGE as error:
            self.drop(f"the other end does not speak MQTT: {error!r}")
            return
        if self._client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS and self.lost is None:
            self.drop("the socket was closed")

    def _on_connect(self, _client: Client, _data: object, _flags: object, code: ReasonCode, said: object) -> None:
        if code.is_failure:
            self._refusal = str(code)
            return
        self.accepted = True
        self.receive_maximum = getattr(said, "ReceiveMaximum", _RECEIVE_MAXIMUM_WITHOUT_A_WORD)

    def _on_publish(self, _client: Client, _data: object, mid: int, code: ReasonCode, _said: Properties) -> None:
        if mid in self._unacknowledged:  # paho reports QoS 0 here, too
            self._unacknowledged.remove(mid)
            self._acknowledgements.append(Acknowledgement(mid, str(code) if code.is_failure else None))

    def _on_subscribe(
        self, _client: Client, _data: object, mid: int, codes: list[ReasonCode], _said: Properties | None
    ) -> None:
        refused = next((str(code) for code in codes if code.is_failure), None)
        self._acknowledgements.append(Acknowledgement(mid, refused))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._received.append(Received(message.topic, bytes(message.payload), message.retain))

    def _on_disconnect(self, _client: Client, _data: object, _flags: object, code: ReasonCode, _said: object) -> None:
        self.lost = self.lost or ("the line broke" if code == "Unspecified error" else str(code))


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave it to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the base class
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def connect(settings: BrokerSettings, will: Will | None) -> Connection:
    """Open a line and wait for the broker's word.

    Args:
        settings: Which broker, and who we are.
        will: None for a line that nobody misses.

    Raises:
        BrokerUnreachableError: Nobody answers, in time or in MQTT.
        BrokerRefusedError: The broker does not want us, or we do not trust its certificate.
    """
    client = _client(settings)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
    connection = Connection(client)
    try:
        client.connect(settings.host, settings.port, keepalive=settings.keepalive_s)
        _send_without_delay(client)
        connection.wait_until_accepted(settings)
    except ssl.SSLCertVerificationError as error:
        raise BrokerRefusedError(
            what=f"the certificate of the broker {settings.address} cannot be trusted: {error.verify_message}",
            remedy="name the authority that signed it as ca_file, or mend the certificate",
            reason=error.verify_message,
        ) from error
    except (OSError, UnicodeError) as error:  # the latter: a host name that cannot be one
        raise _unreachable(settings, str(error)) from error
    finally:
        if not connection.accepted:
            connection.drop("not accepted")
    return connection


def _client(settings: BrokerSettings) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2,
        settings.client_id,
        protocol=MQTTv5 if settings.protocol == "5" else MQTTv311,
        reconnect_on_failure=False,
    )
    client.connect_timeout = settings.connect_timeout_s
    client.max_inflight_messages = 0  # no limit: `room` counts, and nothing queues inside paho
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password)
    if settings.tls:
        client.tls_set_context(_tls_context(settings))
    return client


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        context.sslsocket_class = _TlsSocket
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except OSError as error:
        files = [str(file) for file in (settings.ca_file, settings.certificate_file, settings.key_file) if file]
        raise BrokerRefusedError(
            what=f"cannot use the TLS files {', '.join(files)}: {error}",
            remedy="mend ca_file, certificate_file or key_file of the broker",
            reason=str(error),
        ) from error
    return context


def _send_without_delay(client: Client) -> None:
    # A result and the alert that follows it are two small packets: Nagle's algorithm would hold the second back.
    sock: Any = client.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _unreachable(settings: BrokerSettings, why: str) -> BrokerUnreachableError:
    return BrokerUnreachableError(
        what=f"no MQTT broker at {settings.address}: {why}",
        remedy="check address, port, network and protocol version; records wait meanwhile",
    )
