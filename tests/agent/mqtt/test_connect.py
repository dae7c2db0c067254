from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.mqtt.connect import BrokerSettings, Protocol, Will, connect
from agent.mqtt.connection import Connection, Received
from agent.mqtt.wakeup import Wakeup
from tests.support.real_broker import server_that_says

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.real_broker import Listener, Mosquitto

WILL = Will("plant/status", '{"online":false,"reason":"connection lost"}')


def settings_for(port: int, **more: object) -> BrokerSettings:
    return BrokerSettings(host="127.0.0.1", port=port, client_id="station", **more)  # type: ignore[arg-type]


def acknowledged(connection: Connection, mid: int | None) -> str | None:
    """Serve the connection until the message is acknowledged; returns the reason if it was refused."""
    for _ in range(100):
        for acknowledgement in connection.service(0.1):
            if acknowledgement.mid == mid:
                return acknowledgement.refused
    pytest.fail("no acknowledgement")


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_message_is_acknowledged_in_both_protocols(mosquitto: Mosquitto, protocol: Protocol) -> None:
    mosquitto.start()
    connection = connect(settings_for(mosquitto.port, protocol=protocol), WILL)
    assert acknowledged(connection, connection.publish("plant/a", "{}", qos=1, retain=False)) is None
    connection.close()


def test_will_is_published_when_the_connection_dies(mosquitto: Mosquitto, listen: Callable[[int], Listener]) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    connection = connect(settings_for(mosquitto.port), WILL)
    assert listener.heard == []
    connection.drop("the cable was cut")
    listener.wait_for(lambda heard: heard.on("status"))
    assert listener.on("status") == [{"online": False, "reason": "connection lost"}]
    assert listen(mosquitto.port) is not listener
    late = listen(mosquitto.port)
    late.wait_for(lambda heard: heard.heard)
    assert late.heard[0].retained


def test_goodbye_keeps_the_will_from_being_published(mosquitto: Mosquitto, listen: Callable[[int], Listener]) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    connect(settings_for(mosquitto.port), WILL).close()
    last = connect(settings_for(mosquitto.port), WILL)
    last.publish("plant/last", "{}", qos=1, retain=False)
    listener.wait_for(lambda heard: heard.on("last"))
    last.close()
    assert listener.on("status") == []


def test_the_receive_maximum_is_the_brokers(mosquitto: Mosquitto) -> None:
    mosquitto.start("max_inflight_messages 7")
    connection = connect(settings_for(mosquitto.port), WILL)
    assert connection.room == 7
    connection.publish("plant/a", "{}", qos=0, retain=False)
    assert connection.room == 7
    mid = connection.publish("plant/a", "{}", qos=1, retain=False)
    assert connection.room == 6
    acknowledged(connection, mid)
    assert connection.room == 7
    connection.close()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_what_was_subscribed_to_is_received_in_order(mosquitto: Mosquitto, protocol: Protocol) -> None:
    mosquitto.start()
    connection = connect(settings_for(mosquitto.port, protocol=protocol), WILL)
    connection.publish("plant/kept", b"\x00\xff", qos=1, retain=True)
    connection.publish("plant/unheard", "{}", qos=1, retain=False)
    assert acknowledged(connection, connection.subscribe("plant/+", 1)) is None
    for number in range(3):
        connection.publish("plant/a", str(number), qos=1, retain=False)
    received: list[Received] = []
    while len(received) < 4:
        connection.service(5.0)
        received += connection.take_received()
    assert received[0] == Received("plant/kept", b"\x00\xff", retained=True)
    assert received[1:] == [Received("plant/a", str(number).encode(), retained=False) for number in range(3)]
    assert connection.take_received() == []
    connection.close()
    assert connection.subscribe("plant/a", 1) == 0


def receive_until(connection: Connection, payload: bytes) -> list[Received]:
    """Serve the connection until a message has this payload; returns all up to it."""
    received: list[Received] = []
    deadline_s = time.monotonic() + 20
    while not received or received[-1].payload != payload:
        assert time.monotonic() < deadline_s, f"waited in vain; lost: {connection.lost}"
        connection.service(1.0)
        received += connection.take_received()
    return received


def test_with_mqtt_5_a_message_retained_while_connected_says_so(mosquitto: Mosquitto) -> None:
    mosquitto.start()
    connection = connect(settings_for(mosquitto.port), WILL)
    assert acknowledged(connection, connection.subscribe("plant/+", 1)) is None
    connection.publish("plant/a", "kept", qos=1, retain=True)
    connection.publish("plant/a", "now", qos=1, retain=False)
    assert [message.retained for message in receive_until(connection, b"now")] == [True, False]
    connection.close()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("retained", [False, True])
def test_a_message_too_large_to_be_a_command_takes_no_memory_and_lets_the_next_pass(
    mosquitto: Mosquitto, protocol: Protocol, *, retained: bool
) -> None:
    mosquitto.start()
    sender = connect(replace(settings_for(mosquitto.port), client_id="sender"), None)
    connection = connect(settings_for(mosquitto.port, protocol=protocol), WILL)
    if retained:
        acknowledged(sender, sender.publish("plant/cmd", b"x" * 3_000_000, qos=1, retain=True))
    assert acknowledged(connection, connection.subscribe("plant/+", 1)) is None
    # More than mosquitto leaves without an acknowledgement; for those that it does not send it would wait for ever.
    count = 15 if protocol == "5" else 25
    for number in range(count):
        sender.publish("plant/cmd", b"x" * (140_000 + number), qos=1, retain=False)
    acknowledged(sender, sender.publish("plant/cmd", b"small", qos=1, retain=False))
    *large, small = receive_until(connection, b"small")
    assert len(large) == (0 if protocol == "5" else count + retained)
    assert all(64 * 1024 < len(message.payload) <= 128 * 1024 for message in large)
    assert small.topic == "plant/cmd"
    sender.close()
    connection.close()


def test_a_broker_that_ignores_the_largest_packet_is_read_past_it() -> None:
    topic = b"\x00\x03a/b\x00"
    length = len(topic) + 4_000_000
    digits = bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21])
    large = b"\x30" + digits + topic + b"x" * 4_000_000
    small = b"\x30\x0b" + topic + b"small"
    with server_that_says(b"\x20\x03\x00\x00\x00" + large + small) as port:
        connection = connect(settings_for(port), WILL)
        assert [len(message.payload) <= 128 * 1024 for message in receive_until(connection, b"small")] == [True] * 2
        connection.close()


def test_a_refused_subscription_has_its_reason() -> None:
    with server_that_says(b"\x20\x03\x00\x00\x00" + b"\x90\x04\x00\x01\x00\x87") as port:
        connection = connect(settings_for(port), WILL)
        assert acknowledged(connection, connection.subscribe("plant/secret", 1)) == "Not authorized"
        connection.close()


def test_a_will_need_not_be_retained(mosquitto: Mosquitto, listen: Callable[[int], Listener]) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    connect(settings_for(mosquitto.port), Will("plant/status", b"{}", retain=False)).drop("the cable was cut")
    listener.wait_for(lambda heard: heard.on("status"))
    late = connect(settings_for(mosquitto.port), WILL)
    assert acknowledged(late, late.subscribe("plant/status", 1)) is None
    assert late.take_received() == []
    late.close()


def test_wrong_password_is_refused_with_the_reason_of_the_broker(mosquitto: Mosquitto) -> None:
    mosquitto.start(allow_anonymous=False)
    with pytest.raises(BrokerRefusedError, match="refuses the client 'station': Not authorized") as caught:
        connect(settings_for(mosquitto.port, username="user", password="wrong"), WILL)  # noqa: S106 - wrong on purpose
    assert caught.value.reason == "Not authorized"
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "answer", "remedy"),
    [
        ("5", "20020001", 'mqtt.protocol: "3.1.1"'),  # in the words of MQTT 3.1.1, which is all that it speaks
        ("5", "2003008400", 'mqtt.protocol: "3.1.1"'),
        ("5", "", 'mqtt.protocol: "3.1.1"'),
        ("3.1.1", "20020001", 'mqtt.protocol: "5"'),
        ("3.1.1", "2003008400", 'mqtt.protocol: "5"'),
        ("5", "2003008500", "mqtt.client_id"),
        ("5", "2003008800", "the broker's log"),
        ("5", "2003009500", "limit of the packet size"),
        ("5", "2003009a00", "allow retained messages"),
        ("5", "2003008700", "user, password or access rights"),
        ("3.1.1", "20020002", "mqtt.client_id"),
        ("3.1.1", "20020005", "user, password or access rights"),
    ],
)
def test_the_remedy_for_a_refusal_is_that_of_its_cause(protocol: Protocol, answer: str, remedy: str) -> None:
    with server_that_says(bytes.fromhex(answer), hang_up=True) as port:
        with pytest.raises((BrokerRefusedError, BrokerUnreachableError)) as caught:
            connect(settings_for(port, protocol=protocol), WILL)
        assert remedy in caught.value.one_line
        assert ("access rights" in caught.value.one_line) == ("access rights" in remedy)


def test_right_password_is_accepted(mosquitto: Mosquitto) -> None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = mosquitto.folder / "passwords"
    subprocess.run([tool, "-c", "-b", passwords, "user", "right"], check=True, capture_output=True)  # noqa: S603 - fixed words
    passwords.chmod(0o600)
    mosquitto.start(f"password_file {passwords}", allow_anonymous=False)
    connection = connect(settings_for(mosquitto.port, username="user", password="right"), WILL)  # noqa: S106 - of this test
    assert connection.lost is None
    connection.close()


def test_password_stands_in_no_repr() -> None:
    assert "secret" not in repr(settings_for(1, username="user", password="secret"))  # noqa: S106 - of this test


def test_closed_port_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(BrokerUnreachableError, match="Connection refused"):
            connect(settings_for(unused.getsockname()[1]), WILL)


def test_host_name_that_cannot_be_one_is_unreachable() -> None:
    with pytest.raises(BrokerUnreachableError, match=r"no MQTT broker at a\.\.b:1883"):
        connect(BrokerSettings(host="a..b", client_id="station"), WILL)


def test_a_silent_server_is_given_up_in_time() -> None:
    with server_that_says(b"") as port, pytest.raises(BrokerUnreachableError, match=r"no answer within 0\.2 s"):
        connect(settings_for(port, connect_timeout_s=0.2), WILL)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02", b"\x20\x00", b"\x20\x03\x00\x63\x00", b"\xff" * 20]
)
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_server_that_does_not_speak_mqtt_is_unreachable(answer: bytes, protocol: Protocol) -> None:
    with server_that_says(answer) as port, pytest.raises(BrokerUnreachableError, match="no MQTT broker at"):
        connect(settings_for(port, protocol=protocol, connect_timeout_s=0.2), WILL)


def test_lost_connection_stays_lost(mosquitto: Mosquitto) -> None:
    mosquitto.start()
    connection = connect(settings_for(mosquitto.port), WILL)
    mosquitto.kill()
    assert connection.service(5.0) == []
    reason = connection.lost
    assert reason
    mosquitto.start()
    assert connection.service(5.0) == []
    assert connection.lost == reason
    connection.close()


def test_wake_ends_the_wait_once(mosquitto: Mosquitto) -> None:
    mosquitto.start()
    connection = connect(settings_for(mosquitto.port), WILL)
    wake = Wakeup()
    for _ in range(1000):
        wake.set()
    connection.service(10.0, wake)  # a wait that is not ended makes the test time out
    connection.service(0.0, wake)
    wake.set()
    wake.wait(10.0)
    began_s = time.monotonic()
    wake.wait(0.05)
    assert time.monotonic() - began_s >= 0.04
    wake.close()
    wake.set()
    connection.close()
