"""Whether a broker lets a station in is tried as the station will use it, and what it refuses is named."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import BrokerRefusedError, BrokerUnreachableError
from agent.messages.topics import Topics
from agent.mqtt import access
from agent.mqtt.access import try_access
from agent.mqtt.connect import BrokerSettings, connect
from tests.support.certificates import Authority
from tests.support.published import problems
from tests.support.real_broker import free_port, server_that_says

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.mqtt.connect import Protocol
    from tests.support.real_broker import Listener, Mosquitto

TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")
PASSWORDS = {"station": "right", "mute": "right", "deaf": "right", "half": "right"}
RIGHTS = f"""\
user station
topic readwrite {TOPICS.root}/#
user mute
topic read #
user deaf
topic write #
user half
topic readwrite {TOPICS.root}/cmd/#
topic readwrite {TOPICS.root}/status
"""
BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture
def guarded(mosquitto: Mosquitto) -> Mosquitto:
    """A broker with users, passwords and rights."""
    passwords = mosquitto.folder / "passwords"
    passwords.write_text("".join(f"{user}:{_hashed(password)}\n" for user, password in PASSWORDS.items()))
    rights = mosquitto.folder / "rights"
    rights.write_text(RIGHTS)
    for path in (passwords, rights):
        path.chmod(0o600)
    mosquitto.start(f"password_file {passwords}", f"acl_file {rights}", allow_anonymous=False)
    return mosquitto


def _hashed(password: str) -> str:
    """As mosquitto stores it."""
    salt = b"twelve bytes"
    digest = hashlib.sha512(password.encode() + salt).digest()
    return f"$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def settings(port: int, **more: Any) -> BrokerSettings:  # noqa: ANN401 - fields of the settings
    return BrokerSettings(host="127.0.0.1", port=port, client_id="station1", **more)


@BOTH
def test_what_is_tried_is_found_to_work_and_nothing_of_it_stays_at_the_broker(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    protocol: Protocol,
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    found = try_access(settings(mosquitto.port, protocol=protocol), TOPICS)
    assert found.startswith(f"127.0.0.1:{mosquitto.port} accepts the station in ")
    assert found.endswith(f" below {TOPICS.root}")
    listener.wait_for(lambda heard: len(heard.heard) == 3)
    for message in listener.heard:
        assert problems(message.topic.removeprefix(f"{TOPICS.root}/"), message.content) == []
    (plc,) = listener.on("/plc")
    assert (plc["valid"], plc["resultCode"], plc["resultEvaluation"]) == (False, 13, 3)
    assert listener.on("/status")[0]["state"] == "not taught"
    assert listen(mosquitto.port).heard == []  # nothing is retained


def test_a_station_that_runs_already_is_not_disconnected(mosquitto: Mosquitto) -> None:
    mosquitto.start()
    running = connect(settings(mosquitto.port), None)
    try:
        try_access(settings(mosquitto.port), TOPICS)
        running.service(0.1)
        assert running.lost is None
    finally:
        running.close()


@BOTH
def test_the_right_user_with_its_own_topics_is_let_in(guarded: Mosquitto, protocol: Protocol) -> None:
    assert "accepts the station" in try_access(
        settings(guarded.port, username="station", password="right", protocol=protocol),  # noqa: S106 - of this test
        TOPICS,
    )


@BOTH
@pytest.mark.parametrize(("username", "password"), [("station", "wrong"), ("nobody", "right"), (None, None)])
def test_a_wrong_password_is_refused(guarded: Mosquitto, username: str, password: str, protocol: Protocol) -> None:
    with pytest.raises(BrokerRefusedError, match=r"refuses the client .*: Not authorized\n  correct user, password"):
        try_access(settings(guarded.port, username=username, password=password, protocol=protocol), TOPICS)


@pytest.mark.parametrize(
    ("username", "protocol", "says"),
    [
        ("mute", "5", f"does not let it publish on {TOPICS.status}: Not authorized"),
        ("half", "5", f"does not let it publish on {TOPICS.plc}: Not authorized"),
        ("deaf", "5", f"does not let it read {TOPICS.commands}: what was published there does not come back"),
        ("mute", "3.1.1", f"does not let it read {TOPICS.commands}: what was published there does not come back"),
        ("deaf", "3.1.1", f"does not let it read {TOPICS.commands}: what was published there does not come back"),
    ],
)
def test_missing_rights_are_named_with_the_topic(
    guarded: Mosquitto,
    username: str,
    protocol: Protocol,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "_ANSWERED_WITHIN_S", 0.5)
    with pytest.raises(BrokerRefusedError) as refusal:
        try_access(settings(guarded.port, username=username, password="right", protocol=protocol), TOPICS)  # noqa: S106 - of this test
    assert says in refusal.value.what
    assert "allow the station's user its topics at the broker" in refusal.value.remedy


def test_other_levels_than_the_user_may_use_are_refused(guarded: Mosquitto) -> None:
    with pytest.raises(BrokerRefusedError, match="does not let it publish on other/status: Not authorized"):
        try_access(settings(guarded.port, username="station", password="right"), Topics("other"))  # noqa: S106 - of this test


def test_a_broker_that_speaks_no_tls_is_named(mosquitto: Mosquitto, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    mosquitto.start()
    with pytest.raises(BrokerUnreachableError, match="no TLS handshake"):
        try_access(settings(mosquitto.port, tls=True, ca_file=authority.own.certificate), TOPICS)


def test_a_closed_port_is_named_at_once() -> None:
    began_s = time.monotonic()
    with pytest.raises(BrokerUnreachableError, match=r"no MQTT broker at 127\.0\.0\.1:\d+: .*Connection refused"):
        try_access(settings(free_port()), TOPICS)
    assert time.monotonic() - began_s < 2


def test_a_broker_that_says_nothing_after_it_has_let_the_client_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_ANSWERED_WITHIN_S", 0.3)
    accepted = b"\x20\x03\x00\x00\x00"  # CONNACK of MQTT 5
    with (
        server_that_says(accepted) as port,
        pytest.raises(BrokerRefusedError, match="but not more: it does not answer"),
    ):
        try_access(settings(port), TOPICS)
    with server_that_says(accepted, hang_up=True) as port, pytest.raises(BrokerRefusedError, match="but not more: "):
        try_access(settings(port), TOPICS)
