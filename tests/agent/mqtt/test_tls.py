"""Encrypted connections: which are accepted, and how the others are reported."""

from __future__ import annotations

import shutil
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agent.backoff import BackoffLimits
from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.messages.topics import Topics
from agent.mqtt.connect import BrokerSettings, Protocol, connect
from agent.mqtt.publisher import Publisher, Station
from agent.outbox.outbox import Outbox
from tests.support.certificates import Authority, Pair, openssl
from tests.support.quiet import quiet_live_messages
from tests.support.real_broker import free_port, listens, server_that_says, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.mqtt.connection import Connection
    from tests.support.real_broker import Mosquitto

BOTH = pytest.mark.parametrize("protocol", ["3.1.1", "5"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "theirs")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """A valid certificate of a broker."""
    return authority.sign("broker")


def settings_for(port: int, authority: Authority, **more: object) -> BrokerSettings:
    trusted = {"tls": True, "ca_file": authority.own.certificate, "connect_timeout_s": 5.0}
    return BrokerSettings(host="127.0.0.1", port=port, client_id="station", **{**trusted, **more})  # type: ignore[arg-type]


def encrypted(pair: Pair, *more: str) -> list[str]:
    return [f"certfile {pair.certificate}", f"keyfile {pair.key}", *more]


def asking_for_a_certificate(pair: Pair, authority: Authority) -> list[str]:
    return encrypted(pair, f"cafile {authority.own.certificate}", "require_certificate true")


def takes_a_message(connection: Connection) -> bool:
    mid = connection.publish("plant/a", "{}", qos=1, retain=False)
    return any(answer.mid == mid for _ in range(50) for answer in connection.service(0.1))


@contextmanager
def s_server(pair: Pair, *more: str) -> Iterator[int]:
    """OpenSSL's own server, for what mosquitto cannot do."""
    openssl("version")
    port = free_port()
    own = ["-accept", str(port), "-cert", str(pair.certificate), "-key", str(pair.key), "-quiet"]
    command = [shutil.which("openssl") or "openssl", "s_server", *own, *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:  # noqa: S603 - fixed words
        try:
            wait_for(lambda: listens(port))
            yield port
        finally:
            server.kill()


@BOTH
def test_a_trusted_certificate_makes_an_encrypted_connection(
    mosquitto: Mosquitto, authority: Authority, pair: Pair, protocol: Protocol
) -> None:
    mosquitto.start(listener=encrypted(pair))
    connection = connect(settings_for(mosquitto.port, authority, protocol=protocol), None)
    for _ in range(10):
        assert takes_a_message(connection)
    connection.close()


BAD = {
    "expired": ("certificate has expired", "renew the broker's certificate; if its dates are right, check the clock"),
    "not yet valid": ("certificate is not yet valid", "check the clock of this device (`timedatectl`), then the dates"),
    "self-signed": (r"self.signed certificate", "name the authority that signed it as ca_file"),
    "unknown authority": ("unable to get local issuer certificate", "name the authority that signed it as ca_file"),
    "wrong address": ("IP address mismatch", "use an address of the certificate as mqtt.host"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_certificate_that_cannot_be_trusted_is_refused_with_a_remedy(
    mosquitto: Mosquitto, authority: Authority, stranger: Authority, what: str
) -> None:
    certificates = {
        "expired": lambda: authority.sign("old", begins_in_days=-10, ends_in_days=-1),
        "not yet valid": lambda: authority.sign("young", begins_in_days=1, ends_in_days=10),
        "self-signed": lambda: authority.self_signed("alone"),
        "unknown authority": lambda: stranger.sign("foreign"),
        "wrong address": lambda: authority.sign("elsewhere", "IP:10.0.0.7"),
    }
    mosquitto.start(listener=encrypted(certificates[what]()))
    problem, remedy = BAD[what]
    with pytest.raises(
        BrokerRefusedError, match=f"the certificate of the broker .* cannot be trusted: .*{problem}"
    ) as caught:
        connect(settings_for(mosquitto.port, authority), None)
    assert remedy in caught.value.remedy
    assert problem.replace(".", "-") in caught.value.reason.replace("self signed", "self-signed")


def test_a_certificate_of_another_host_is_refused(mosquitto: Mosquitto, authority: Authority, pair: Pair) -> None:
    mosquitto.start(listener=encrypted(pair))
    settings = BrokerSettings(
        host="localhost", port=mosquitto.port, client_id="s", tls=True, ca_file=authority.own.certificate
    )
    with pytest.raises(BrokerRefusedError, match="Hostname mismatch") as caught:
        connect(settings, None)
    assert "use a name of the certificate as mqtt.host" in caught.value.remedy


def test_without_a_ca_file_only_the_system_is_trusted(mosquitto: Mosquitto, authority: Authority, pair: Pair) -> None:
    mosquitto.start(listener=encrypted(pair))
    with pytest.raises(BrokerRefusedError, match="unable to get local issuer certificate"):
        connect(settings_for(mosquitto.port, authority, ca_file=None), None)


def test_an_expired_certificate_is_reported_once_and_tried_again_only_slowly(
    mosquitto: Mosquitto, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.start(listener=encrypted(authority.sign("gone", begins_in_days=-10, ends_in_days=-1)))
    short_wait = threading.Event()

    def jitter() -> float:
        short_wait.set()
        return 0.0

    station = Station(
        session_id="s", version="1", state=lambda: ("running", ""), info=dict, alert_state=dict, health=dict
    )
    pace = BackoffLimits(first_retry_s=0.01, refused_retry_s=60, jitter=jitter)
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        publisher = Publisher(
            settings_for(mosquitto.port, authority),
            Topics("a/b"),
            outbox,
            station,
            quiet_live_messages(Topics("a/b")),
            pace,
        )
        with publisher:
            wait_for(lambda: publisher.last_error)
            assert "certificate has expired" in str(publisher.last_error)
    assert not short_wait.is_set()
    assert len(caplog.records) == 1


@BOTH
def test_tls_to_a_broker_without_it_is_named_as_the_problem(
    mosquitto: Mosquitto, authority: Authority, protocol: Protocol
) -> None:
    mosquitto.start()
    with pytest.raises(BrokerUnreachableError, match=r"no TLS handshake: .*it speaks no TLS on this port") as caught:
        connect(settings_for(mosquitto.port, authority, protocol=protocol), None)
    assert "mqtt.tls.enabled is true" in caught.value.what


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["nothing", "something else"])
def test_a_server_that_answers_a_handshake_with(authority: Authority, answer: bytes) -> None:
    with server_that_says(answer) as port, pytest.raises(BrokerUnreachableError, match="it speaks no TLS on this port"):
        connect(settings_for(port, authority, connect_timeout_s=0.3), None)


@BOTH
def test_a_plain_connection_to_a_broker_with_tls_is_named_as_the_problem(
    mosquitto: Mosquitto, pair: Pair, protocol: Protocol
) -> None:
    mosquitto.start(listener=encrypted(pair))
    plain = BrokerSettings(host="127.0.0.1", port=mosquitto.port, client_id="station", protocol=protocol)
    with pytest.raises(BrokerUnreachableError, match="it expects TLS on this port") as caught:
        connect(plain, None)
    assert "mqtt.tls.enabled is false" in caught.value.what


@BOTH
def test_a_client_certificate_that_the_broker_knows_is_taken(
    mosquitto: Mosquitto, authority: Authority, pair: Pair, protocol: Protocol
) -> None:
    mosquitto.start(listener=asking_for_a_certificate(pair, authority))
    own = authority.sign("station")
    files = {"certificate_file": own.certificate, "key_file": own.key}
    connection = connect(settings_for(mosquitto.port, authority, protocol=protocol, **files), None)
    assert takes_a_message(connection)
    connection.close()


@BOTH
@pytest.mark.parametrize("what", ["missing", "of a stranger", "expired"])
def test_a_client_certificate_that_the_broker_does_not_take_is_named_as_the_reason(  # noqa: PLR0913, PLR0917 - a table
    mosquitto: Mosquitto, authority: Authority, stranger: Authority, pair: Pair, what: str, protocol: Protocol
) -> None:
    mosquitto.start(listener=asking_for_a_certificate(pair, authority))
    files: dict[str, object] = {}
    if what != "missing":
        old: dict[str, Any] = {"begins_in_days": -10.0, "ends_in_days": -1.0}
        own = stranger.sign("stranger") if what == "of a stranger" else authority.sign("retired", **old)
        files = {"certificate_file": own.certificate, "key_file": own.key}
    with pytest.raises(BrokerRefusedError, match=r"refuses the TLS connection: .*alert") as caught:
        connect(settings_for(mosquitto.port, authority, protocol=protocol, **files), None)
    expected = {"missing": "certificate required", "of a stranger": "unknown ca", "expired": "certificate expired"}
    assert expected[what] in caught.value.reason
    assert "a certificate of this client (cert_file, key_file)" in caught.value.remedy


def test_with_tls_1_2_a_missing_client_certificate_is_reported_in_the_handshake(
    authority: Authority, pair: Pair
) -> None:
    verify = ["-Verify", "1", "-verify_return_error", "-CAfile", str(authority.own.certificate)]
    with s_server(pair, "-tls1_2", *verify) as port, pytest.raises(BrokerRefusedError, match="alert handshake failure"):
        connect(settings_for(port, authority), None)


def test_a_broker_older_than_tls_1_2_is_refused(authority: Authority, pair: Pair) -> None:
    with (
        s_server(pair, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as port,
        pytest.raises(BrokerRefusedError, match="alert protocol version") as caught,
    ):
        connect(settings_for(port, authority), None)
    assert "TLS 1.2 or newer" in caught.value.remedy


def test_a_key_that_is_not_that_of_the_certificate_is_refused_before_anything_is_sent(authority: Authority) -> None:
    one, other = authority.sign("one"), authority.sign("other")
    with pytest.raises(BrokerRefusedError, match=r"cannot use the TLS files .*key values mismatch") as caught:
        connect(settings_for(1, authority, certificate_file=one.certificate, key_file=other.key), None)
    assert "the key needs to be that of the certificate" in caught.value.remedy


def test_a_key_with_a_pass_phrase_is_refused_without_asking_anybody(authority: Authority) -> None:
    own = authority.sign("locked")
    locked = own.key.with_name("locked.pem.key")
    openssl("ec", "-in", str(own.key), "-aes256", "-passout", "pass:secret", "-out", str(locked))
    with pytest.raises(BrokerRefusedError, match="cannot use the TLS files") as caught:
        connect(settings_for(1, authority, certificate_file=own.certificate, key_file=locked), None)
    assert "without a pass phrase" in caught.value.remedy


def test_a_missing_file_is_named(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(BrokerRefusedError, match=r"cannot use the TLS files .*missing\.pem"):
        connect(settings_for(1, authority, ca_file=tmp_path / "missing.pem"), None)


def test_a_file_that_is_no_certificate_is_named(authority: Authority, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(BrokerRefusedError, match=r"cannot use the TLS files .*text\.pem"):
        connect(settings_for(1, authority, ca_file=text), None)
