"""Connect to a broker.

Each connection is a new paho client. paho queues what it cannot send, renumbers it and sends it again after a
reconnect of its own; here the outbox is the only queue, so a lost connection takes all its state with it.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.mqtt.bounded_client import LARGEST_RECEIVED_BYTES, BoundedClient
from agent.mqtt.connection import Connection
from agent.mqtt.packet_limit import PacketLimit
from agent.mqtt.tls import HandshakeError, TlsSocket, refused_error, tls_context, untrusted_error

if TYPE_CHECKING:
    from pathlib import Path

Protocol: TypeAlias = Literal["3.1.1", "5"]
_OTHER_PROTOCOL: dict[Protocol, Protocol] = {"5": "3.1.1", "3.1.1": "5"}
_ACCESS_REMEDY = "correct user, password or access rights, here or at the broker"
# By the broker's reason. The agent tries again in any case.
_REMEDIES = {
    "Client identifier not valid": "set mqtt.client_id to one that the broker allows",
    "Server unavailable": "look at the broker's log: it is there, and cannot take clients now",
    "Server busy": "look at the broker's log: it is there, and cannot take clients now",
    "Quota exceeded": "raise the broker's limit of clients or messages",
    "Connection rate exceeded": "raise the broker's limit of connections a second",
    "Packet too large": "raise the broker's limit of the packet size: not even the first packet fits",
    "Topic name invalid": "use a station.name and levels that the broker allows as a topic, or correct its rules",
    "Retain not supported": "allow retained messages at the broker: status, info and alert/state are retained",
    "QoS not supported": "allow QoS 1 at the broker: records are sent with it",
    "Use another server": "set mqtt.host to the broker that took its duties over",
    "Server moved": "set mqtt.host to the broker that took its duties over",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """The broker, and how to log in there.

    Attributes:
        keepalive_s: A silent broker is given up after this time at most; it gives the client up after one and a half.
        connect_timeout_s: For each of: the TCP connection, the TLS handshake, the broker's answer.
        tls: Encrypt, and verify the broker's certificate and name.
        ca_file: Certificates to trust; None takes those of the operating system.
        certificate_file: Client certificate, where the broker asks for one.
        key_file: Its key.
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
        """Host and port, for people."""
        return f"{self.host}:{self.port}"


class Will(NamedTuple):
    """What the broker publishes when the client vanishes without a disconnect."""

    topic: str
    payload: str | bytes
    retain: bool = True


def connect(settings: BrokerSettings, will: Will | None, limit: PacketLimit | None = None) -> Connection:
    """Open a connection and wait until the broker accepts it.

    Args:
        settings: The broker.
        will: What it publishes when the client vanishes.
        limit: What is known about the largest packet; None where this is the only connection.

    Raises:
        BrokerUnreachableError: No answer, in time or in MQTT.
        BrokerRefusedError: The broker refuses the client, or its certificate cannot be trusted.
    """
    client = _client(settings)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
    connection = Connection(client, settings.keepalive_s, limit or PacketLimit())
    sockets: list[Any] = []  # kept here, since paho forgets a socket that was closed at once

    def opened(_client: Client, _data: object, sock: Any) -> None:  # noqa: ANN401 - paho names no type for it
        sockets.append(sock)
        _tune(sock, settings)

    client.on_socket_open = opened
    try:
        properties = _connect_properties(settings)
        client.connect(settings.host, settings.port, keepalive=settings.keepalive_s, properties=properties)
        _wait_until_accepted(connection, settings, sockets[-1])
    except ssl.SSLCertVerificationError as error:
        raise untrusted_error(settings.address, error) from error
    except HandshakeError as error:
        if error.refusal is not None:
            raise refused_error(settings.address, error.refusal) from error
        why = f"no TLS handshake: {error}; perhaps it speaks no TLS on this port (mqtt.tls.enabled is true)"
        raise _unreachable(settings, why) from error
    except (OSError, UnicodeError) as error:  # the latter: a host name that cannot be one
        raise _unreachable(settings, str(error)) from error
    finally:
        if not connection.accepted:
            connection.drop("not accepted")
    return connection


def _wait_until_accepted(connection: Connection, settings: BrokerSettings, sock: object) -> None:
    deadline_s = time.monotonic() + settings.connect_timeout_s
    while not connection.accepted:
        if connection.refusal is not None:
            raise BrokerRefusedError(
                what=f"the broker {settings.address} refuses the client {settings.client_id!r}: {connection.refusal}",
                remedy=_remedy(connection.refusal, settings),
                reason=connection.refusal,
            )
        if isinstance(sock, TlsSocket) and sock.refusal is not None:
            raise refused_error(settings.address, sock.refusal)
        remaining_s = deadline_s - time.monotonic()
        if connection.lost is not None or remaining_s <= 0:
            why = connection.lost or f"no answer within {settings.connect_timeout_s:g} s"
            perhaps = "" if settings.tls else "; perhaps it expects TLS on this port (mqtt.tls.enabled is false)"
            if connection.lost is not None:  # the end without an answer, as some brokers do with an unknown version
                perhaps += f"; perhaps it does not speak MQTT {settings.protocol}: {_protocol_remedy(settings)}"
            raise _unreachable(settings, why + perhaps)
        connection.service(remaining_s)


def _remedy(refusal: str, settings: BrokerSettings) -> str:
    if refusal == "Unsupported protocol version":
        return _protocol_remedy(settings)
    return _REMEDIES.get(refusal, _ACCESS_REMEDY)


def _protocol_remedy(settings: BrokerSettings) -> str:
    return f'set mqtt.protocol: "{_OTHER_PROTOCOL[settings.protocol]}"'


def _connect_properties(settings: BrokerSettings) -> Properties | None:
    if settings.protocol != "5":
        return None
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = LARGEST_RECEIVED_BYTES
    return properties


def _client(settings: BrokerSettings) -> BoundedClient:
    client = BoundedClient(
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
        client.tls_set_context(tls_context(settings.ca_file, settings.certificate_file, settings.key_file))
    return client


def _tune(sock: Any, settings: BrokerSettings) -> None:  # noqa: ANN401 - paho names no type for it
    # A result and the alert after it are two small packets: Nagle's algorithm would hold the second back.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # By default the kernel repeats unacknowledged packets for a quarter of an hour.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.keepalive_s * 1000 // 2)


def _unreachable(settings: BrokerSettings, why: str) -> BrokerUnreachableError:
    return BrokerUnreachableError(
        what=f"no MQTT broker at {settings.address}: {why}",
        remedy="check address, port, network and protocol version; records wait meanwhile",
    )
