from __future__ import annotations

import itertools
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backoff import Backoff, BackoffLimits
from agent.messages.records import Alert, Payload, to_json
from agent.messages.topics import Topics
from agent.mqtt.connect import BrokerSettings, Protocol
from agent.mqtt.connection import Acknowledgement
from agent.mqtt.outbox_drain import OutboxDrain
from agent.mqtt.publisher import Publisher, Station
from agent.outbox.outbox import Outbox
from tests.support.broker_clients import put_results, remember_connections
from tests.support.gate import Gate
from tests.support.quiet import quiet_live_messages
from tests.support.real_broker import Listener, Mosquitto, free_port, halt, listens, server_that_says, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.outbox.outbox import Kind

pytestmark = pytest.mark.waits

TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")
QUICK = BackoffLimits(health_every_s=0.05, first_retry_s=0.02, longest_retry_s=0.05, refused_retry_s=0.1)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as outbox:
        yield outbox


@pytest.fixture
def publish(mosquitto: Mosquitto, outbox: Outbox) -> Iterator[Callable[..., Publisher]]:
    """Starts publishers, and stops them at the end."""
    publishers: list[Publisher] = []

    def start(
        pace: BackoffLimits = QUICK,
        station: Station | None = None,
        **more: Any,  # noqa: ANN401 - settings of the broker
    ) -> Publisher:
        address = BrokerSettings(host="127.0.0.1", port=mosquitto.port, client_id="station1")
        publisher = Publisher(
            replace(address, **more), TOPICS, outbox, station or a_station(), quiet_live_messages(TOPICS), pace
        )
        publisher.start()
        publishers.append(publisher)
        return publisher

    yield start
    for publisher in publishers:
        publisher.stop()
        assert not publisher.alive


def a_station(alerts: Callable[[], Payload] = lambda: {"active": []}) -> Station:
    return Station(
        session_id="session",
        version="1.2.3",
        state=lambda: ("running", "started"),
        info=lambda: {"bundleHash": "b"},
        alert_state=alerts,
        health=lambda: {"fps": float("nan")},
    )


def result_ids(listener: Listener) -> list[str]:
    return [content["resultId"] for content in listener.on("/result")]


@pytest.mark.slow
def test_records_of_the_past_are_sent_at_the_pace_and_none_is_held_back_for_ever(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    ids = put_results(outbox, range(200), TOPICS.result)
    began_s = time.monotonic()
    publisher = publish(pace=replace(QUICK, records_per_s=200.0))
    listener.wait_for(lambda heard: len(heard.on("/result")) == 200)
    assert time.monotonic() - began_s > 0.8, "a second at 200 a second, less a window"
    assert result_ids(listener) == ids
    wait_for(lambda: publisher.waiting == 0)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_every_record_arrives_in_order(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    outbox: Outbox,
    publish: Callable[..., Publisher],
    protocol: Protocol,
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    before = put_results(outbox, range(1000), TOPICS.result)
    publisher = publish(protocol=protocol)
    wait_for(lambda: publisher.connected)
    live = put_results(outbox, range(1000, 1500), TOPICS.result)
    publisher.wake()
    listener.wait_for(lambda heard: len(heard.on("/result")) == 1500)
    assert result_ids(listener) == before + live
    wait_for(lambda: publisher.published == 1500)
    assert publisher.waiting == 0


def test_only_records_from_before_the_connection_are_historical(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    put_results(outbox, range(3), TOPICS.result)
    alert = Alert(type="new", severity=500, cause="dark", started_at_ms=1)
    outbox.put("alert", alert.record_id, TOPICS.alert, to_json(alert.payload()), 1)
    publisher = publish()
    listener.wait_for(lambda heard: heard.on("/alert"))
    put_results(outbox, range(3, 6), TOPICS.result)
    publisher.wake()
    listener.wait_for(lambda heard: len(heard.on("/result")) == 6)
    assert [content["historical"] for content in listener.on("/result")] == [True] * 3 + [False] * 3
    assert listener.on("/alert") == [{**alert.payload(), "historical": True}]


@pytest.mark.slow
def test_nothing_is_lost_when_the_broker_dies_and_comes_back(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    outbox: Outbox,
    publish: Callable[..., Publisher],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent")
    mosquitto.start()
    first = listen(mosquitto.port)
    gate = Gate()
    publisher = publish(pace=replace(QUICK, jitter=gate))
    ids = put_results(outbox, range(50), TOPICS.result)
    publisher.wake()
    wait_for(lambda: publisher.published == 50)
    first.wait_for(lambda heard: len(heard.on("/result")) == 50)
    mosquitto.kill()
    assert gate.reached.wait(10)
    assert not publisher.connected
    ids += put_results(outbox, range(50, 400), TOPICS.result)
    mosquitto.start()
    second = listen(mosquitto.port)
    gate.open.set()
    second.wait_for(lambda heard: len(heard.on("/result")) == 350)
    assert result_ids(first) + result_ids(second) == ids
    assert all(content["historical"] for content in second.on("/result"))
    assert second.on("/status")[0]["online"] is True
    lines = [(record.levelname, record.getMessage().split()[0]) for record in caplog.records]
    assert lines == [("INFO", "connected"), ("WARNING", "connection"), ("INFO", "connected")]


def test_unacknowledged_records_stay_when_the_broker_dies(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    gate = Gate()
    publisher = publish(pace=replace(QUICK, jitter=gate))
    wait_for(lambda: publisher.connected)
    assert mosquitto.process is not None
    halt(mosquitto.process)
    ids = put_results(outbox, range(30), TOPICS.result)
    publisher.wake()
    mosquitto.kill()
    assert gate.reached.wait(10)
    assert publisher.waiting == 30
    mosquitto.start()
    listener = listen(mosquitto.port)
    gate.open.set()
    listener.wait_for(lambda heard: len(heard.on("/result")) == 30)
    assert result_ids(listener) == ids
    wait_for(lambda: publisher.published == 30)
    assert publisher.waiting == 0


@pytest.mark.slow
def test_broker_that_falls_silent_is_given_up(
    mosquitto: Mosquitto, outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    publisher = publish(keepalive_s=1, connect_timeout_s=0.2)
    wait_for(lambda: publisher.connected)
    assert mosquitto.process is not None
    halt(mosquitto.process)
    put_results(outbox, range(5), TOPICS.result)
    publisher.wake()
    wait_for(lambda: not publisher.connected)
    assert publisher.waiting == 5
    mosquitto.process.send_signal(signal.SIGCONT)
    wait_for(lambda: publisher.published == 5)


@pytest.mark.slow
def test_broker_that_acknowledges_nothing_is_given_up(
    mosquitto: Mosquitto,
    outbox: Outbox,
    publish: Callable[..., Publisher],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("agent.mqtt.connection.Connection._ping_or_drop", lambda _: None)  # else the ping tells first
    mosquitto.start()
    publisher = publish(connect_timeout_s=0.2, keepalive_s=1)
    wait_for(lambda: publisher.connected)
    assert mosquitto.process is not None
    halt(mosquitto.process)
    put_results(outbox, range(5), TOPICS.result)
    publisher.wake()
    wait_for(lambda: "it acknowledges nothing" in caplog.text)
    mosquitto.process.send_signal(signal.SIGCONT)
    wait_for(lambda: publisher.published == 5)


class PaperConnection:
    """A connection that only counts."""

    receive_maximum = room = 10
    keepalive_s = 30.0

    def __init__(self) -> None:
        self.mids = itertools.count(1)

    def publish(self, *_: object, **__: object) -> int:
        return next(self.mids)


def test_a_refused_record_is_offered_again_after_a_while_over_the_same_connection(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("agent.mqtt.outbox_drain.time.monotonic", lambda: now_s)
    put_results(outbox, range(1), TOPICS.result)
    delivery = OutboxDrain(PaperConnection(), outbox, window=10, refused_retry_s=60.0)  # type: ignore[arg-type]
    delivery.send()
    delivery.settle([Acknowledgement(1, "Not authorized")])
    assert delivery.idle
    now_s += 60.0
    delivery.send()
    assert not delivery.idle
    assert not delivery.stalled
    assert delivery.settle([Acknowledgement(2, None)]) == 0
    now_s += 1.0
    assert delivery.settle([]) == 1
    assert outbox.depth() == 0


def test_every_record_is_published_waiting_or_dropped_with_a_reason(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    with Outbox(tmp_path / "small.db", max_records=20) as small:
        address = BrokerSettings(host="127.0.0.1", port=mosquitto.port, client_id="other")
        with Publisher(address, TOPICS, small, a_station(), quiet_live_messages(TOPICS), QUICK) as publisher:
            for _ in range(3):
                put_results(small, range(300), TOPICS.result)
                publisher.wake()
                wait_for(lambda: small.depth() <= 10)
        assert publisher.published + small.depth() + small.dropped.total() == 900


def test_the_station_is_announced_at_every_connection(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    publisher = publish()
    wait_for(lambda: publisher.connected)
    mosquitto.kill()
    wait_for(lambda: not publisher.connected)
    mosquitto.start()
    listen(mosquitto.port).wait_for(lambda heard: heard.on("/alert/state"))
    late = listen(mosquitto.port)
    late.wait_for(lambda heard: heard.on("/alert/state"))
    (status,) = late.on("/status")
    assert {**status, "timestamp": 0} == {
        "online": True,
        "timestamp": 0,
        "state": "running",
        "reason": "started",
        "sessionId": "session",
        "version": "1.2.3",
    }
    assert abs(status["timestamp"] / 1000 - time.time()) < 60
    assert all(message.retained for message in late.heard if not message.topic.endswith("/health"))
    assert late.on("/info") == [{"bundleHash": "b"}]


def test_alert_state_is_published_again_when_it_changes(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    active: list[str] = []
    publisher = publish(station=a_station(lambda: {"active": list(active)}))
    listener.wait_for(lambda heard: heard.on("/alert/state"))
    active.append("dark")
    publisher.announce("alert_state")
    listener.wait_for(lambda heard: len(heard.on("/alert/state")) == 2)
    assert listener.on("/alert/state") == [{"active": []}, {"active": ["dark"]}]
    assert len(listener.on("/status")) == 1


def test_health_is_published_without_any_result(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    publish()
    listener.wait_for(lambda heard: len(heard.on("/health")) >= 3)
    assert listener.on("/health")[0] == {"fps": None}


def test_status_is_published_again_when_the_state_changes(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    states = [("running", "")]
    station = replace(a_station(), state=lambda: states[-1])
    publish(pace=replace(QUICK, health_every_s=0.05), station=station)
    listener.wait_for(lambda heard: heard.on("/status"))
    states.append(("fault", "the frame is too small"))
    listener.wait_for(lambda heard: len(heard.on("/status")) == 2)
    assert [(said["state"], said["reason"]) for said in listener.on("/status")] == states


def test_the_last_messages_have_the_final_counts(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    captured = [1]
    publisher = publish(station=replace(a_station(), health=lambda: {"captured": captured[-1]}))
    listener.wait_for(lambda heard: heard.on("/health"))
    captured.append(17)
    publisher.stop()
    listener.wait_for(lambda heard: heard.on("/status")[-1:] and not heard.on("/status")[-1]["online"])
    assert listener.on("/health")[-1] == {"captured": 17}


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_two_agents_with_one_client_id_log_why_they_lose_the_connection_and_lose_no_record(
    mosquitto: Mosquitto,
    outbox: Outbox,
    publish: Callable[..., Publisher],
    caplog: pytest.LogCaptureFixture,
    protocol: Protocol,
) -> None:
    mosquitto.start()
    first = publish(protocol=protocol)
    wait_for(lambda: first.connected)
    second = publish(protocol=protocol)
    wait_for(lambda: "another agent has the client id 'station1'" in caplog.text)
    for number in range(20):
        put_results(outbox, range(number), TOPICS.result)
        first.wake()
        second.wake()
        wait_for(lambda: outbox.depth() == 0)
    assert outbox.dropped.total() == 0


@pytest.mark.slow
def test_clean_stop_drains_and_leaves_an_offline_status(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    publisher = publish(pace=replace(QUICK, health_every_s=60))
    wait_for(lambda: publisher.connected)
    ids = put_results(outbox, range(250), TOPICS.result)
    publisher.stop(deadline_s=10)
    assert not publisher.alive
    assert not publisher.connected
    assert publisher.published == 250
    assert outbox.depth() == 0
    listener.wait_for(lambda heard: len(heard.on("/status")) == 2)
    assert result_ids(listener) == ids
    offline = listener.on("/status")[-1]
    assert (offline["online"], offline["state"], offline["reason"]) == (False, "offline", "stopped")
    late = listen(mosquitto.port)
    late.wait_for(lambda heard: heard.on("/status"))
    assert late.on("/status") == [offline]


def test_stop_right_after_the_start_delivers_all_the_same(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    ids = put_results(outbox, range(3), TOPICS.result)
    publish().stop(5.0)
    listener.wait_for(lambda heard: heard.on("/status") and not heard.on("/status")[-1]["online"])
    assert result_ids(listener) == ids
    assert outbox.depth() == 0


@pytest.mark.slow
def test_will_is_published_when_the_agent_is_killed(mosquitto: Mosquitto, listen: Callable[[int], Listener]) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    script = (
        "import sys, time; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})\n"
        "from tests.agent.mqtt.test_publisher import TOPICS, a_station, quiet_live_messages\n"
        "from tests.agent.mqtt.test_publisher import BrokerSettings, Outbox, Publisher\n"
        "outbox = Outbox(Path(sys.argv[1]))\n"
        "address = BrokerSettings(host='127.0.0.1', port=int(sys.argv[2]), client_id='doomed')\n"
        "with Publisher(address, TOPICS, outbox, a_station(), quiet_live_messages(TOPICS)):\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(mosquitto.folder / "doomed.db"), str(mosquitto.port)]
    with subprocess.Popen(command) as process:  # noqa: S603 - our own script
        listener.wait_for(lambda heard: heard.on("/status"))
        process.kill()
    listener.wait_for(lambda heard: len(heard.on("/status")) == 2)
    online, offline = listener.on("/status")
    assert online["online"] is True
    assert (offline["online"], offline["reason"], offline["sessionId"]) == (False, "connection lost", "session")


def test_status_is_online_again_after_the_socket_was_cut(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    publish: Callable[..., Publisher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections = remember_connections(monkeypatch)
    mosquitto.start()
    listener = listen(mosquitto.port)
    publish()
    listener.wait_for(lambda heard: heard.on("/status"))
    connections[0]._client.socket().shutdown(socket.SHUT_RDWR)
    listener.wait_for(lambda heard: len(heard.on("/status")) == 3)
    assert [(status["online"], status["reason"]) for status in listener.on("/status")] == [
        (True, "started"),
        (False, "connection lost"),
        (True, "started"),
    ]


def test_refusal_is_reported_once_with_its_reason(
    mosquitto: Mosquitto, outbox: Outbox, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.start(allow_anonymous=False)
    put_results(outbox, range(3), TOPICS.result)
    publisher = publish(pace=replace(QUICK, refused_retry_s=0.01))
    log = mosquitto.folder / "mosquitto.log"
    wait_for(lambda: log.read_text().count("not authorised") >= 3)
    assert publisher.last_error is not None
    assert "Not authorized" in publisher.last_error
    assert not publisher.connected
    assert publisher.waiting == 3
    (record,) = caplog.records
    assert "refuses the client 'station1': Not authorized" in record.getMessage()
    mosquitto.stop()
    mosquitto.start()
    wait_for(lambda: publisher.published == 3)
    assert publisher.last_error is None


def test_refusal_is_followed_by_a_long_wait(mosquitto: Mosquitto, publish: Callable[..., Publisher]) -> None:
    mosquitto.start(allow_anonymous=False)
    short_wait = threading.Event()

    def jitter() -> float:
        short_wait.set()
        return 0.0

    publisher = publish(pace=replace(QUICK, refused_retry_s=60, jitter=jitter))
    wait_for(lambda: publisher.last_error)
    publisher.wake()
    publisher.stop()  # and the wait does not hold up the stop
    assert not short_wait.is_set()
    assert (mosquitto.folder / "mosquitto.log").read_text().count("not authorised") == 1


def test_records_stay_when_there_is_no_broker_at_start(
    mosquitto: Mosquitto, outbox: Outbox, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
) -> None:
    attempts = itertools.count()
    fifth = threading.Event()

    def jitter() -> float:
        if next(attempts) == 4:
            fifth.set()
        return 0.0

    put_results(outbox, range(10), TOPICS.result)
    publisher = publish(pace=replace(QUICK, jitter=jitter))
    assert fifth.wait(10)
    assert publisher.waiting == 10
    assert not publisher.connected
    (record,) = caplog.records
    assert "no MQTT broker at" in record.getMessage()
    mosquitto.start()
    wait_for(lambda: publisher.published == 10)


def test_stop_does_not_wait_for_a_broker_that_is_away(outbox: Outbox) -> None:
    away = BrokerSettings(host="127.0.0.1", port=free_port(), client_id="station1")
    put_results(outbox, range(3), TOPICS.result)
    publisher = Publisher(
        away,
        TOPICS,
        outbox,
        a_station(),
        quiet_live_messages(TOPICS),
        replace(QUICK, first_retry_s=60, longest_retry_s=60),
    )
    publisher.start()
    wait_for(lambda: publisher.last_error)
    publisher.stop(deadline_s=5)
    assert not publisher.alive
    assert publisher.waiting == 3


@pytest.mark.slow
@pytest.mark.parametrize("forbidden", ["alert", "result"])
def test_records_that_the_broker_refuses_wait_and_let_others_pass(  # noqa: PLR0913, PLR0917 - what a station has
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    outbox: Outbox,
    publish: Callable[..., Publisher],
    caplog: pytest.LogCaptureFixture,
    forbidden: Kind,
) -> None:
    window = 20
    topics: dict[Kind, str] = {"alert": TOPICS.alert, "result": TOPICS.result}
    allowed: Kind = "result" if forbidden == "alert" else "alert"
    rights = mosquitto.folder / "rights"
    announced = "".join(f"topic write {topic}\n" for topic in (TOPICS.status, TOPICS.info, TOPICS.alert_state))
    rights.write_text(f"topic read #\ntopic write {topics[allowed]}\n{announced}")
    rights.chmod(0o600)
    mosquitto.start(f"acl_file {rights}", f"max_inflight_messages {window}")
    for number in range(300):
        for kind, topic in topics.items():
            outbox.put(kind, f"{kind}{number}", topic, f'{{"number":{number}}}', 1)
    listener = listen(mosquitto.port)
    publisher = publish()
    wait_for(lambda: publisher.published == 300)
    assert publisher.waiting == 300
    assert publisher.last_error == f"{topics[forbidden]}: Not authorized"
    listener.wait_for(lambda heard: len(heard.on(f"/{allowed}")) == 300)
    assert [content["number"] for content in listener.on(f"/{allowed}")] == list(range(300))
    assert len(listener.on(f"/{forbidden}")) == 0
    rights.write_text("topic readwrite #\n")
    assert mosquitto.process is not None
    mosquitto.process.send_signal(signal.SIGHUP)
    listener.wait_for(lambda heard: len(heard.on(f"/{forbidden}")) == 300)
    # Not always in order: the rights may change while a window of them is being refused.
    assert sorted(content["number"] for content in listener.on(f"/{forbidden}")) == list(range(300))
    wait_for(lambda: publisher.published == 600)
    wait_for(lambda: publisher.last_error is None)
    assert len([record for record in caplog.records if "refuses messages" in record.getMessage()]) == 1


def test_an_announcement_that_the_broker_refuses_is_named_and_records_pass(
    mosquitto: Mosquitto, outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    rights = mosquitto.folder / "rights"
    rights.write_text(f"topic write {TOPICS.result}\n")
    rights.chmod(0o600)
    mosquitto.start(f"acl_file {rights}")
    put_results(outbox, range(10), TOPICS.result)
    publisher = publish()
    wait_for(lambda: publisher.published == 10)
    wait_for(lambda: publisher.last_error == f"{TOPICS.alert_state}: Not authorized")


def test_in_mqtt_3_1_1_a_broker_silently_drops_what_it_refuses(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox, publish: Callable[..., Publisher]
) -> None:
    """The reason why the README recommends MQTT 5."""
    rights = mosquitto.folder / "rights"
    rights.write_text("topic read #\n")
    rights.chmod(0o600)
    mosquitto.start(f"acl_file {rights}")
    listener = listen(mosquitto.port)
    put_results(outbox, range(10), TOPICS.result)
    publisher = publish(protocol="3.1.1")
    wait_for(lambda: publisher.published == 10)
    assert publisher.last_error is None
    assert listener.heard == []


@pytest.mark.slow
def test_pure_python_broker_takes_the_same_messages(outbox: Outbox, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "amqtt.yaml"
    config.write_text(
        f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
    )
    command = [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]
    address = BrokerSettings(host="127.0.0.1", port=port, client_id="station1", protocol="3.1.1")
    ids = put_results(outbox, range(200), TOPICS.result)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as broker:  # noqa: S603 - installed beside us
        try:
            wait_for(lambda: listens(port), 20)
            listener = Listener(port)
            with Publisher(address, TOPICS, outbox, a_station(), quiet_live_messages(TOPICS), QUICK) as publisher:
                wait_for(lambda: publisher.published == 200)
                # Before the goodbye: this broker forgets what it has acknowledged and not yet passed on.
                listener.wait_for(lambda heard: len(heard.on("/result")) == 200)
            assert result_ids(listener) == ids
            assert listener.on("/status")[0]["online"] is True
            listener.close()
        finally:
            broker.kill()


@pytest.mark.slow
def test_a_refused_subscription_is_reported(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    accepted, not_authorised = bytes.fromhex("2003000000"), bytes.fromhex("900400010087")
    with server_that_says(accepted + not_authorised) as port:
        address = BrokerSettings(host="127.0.0.1", port=port, client_id="deaf")
        with Publisher(address, TOPICS, outbox, a_station(), quiet_live_messages(TOPICS), QUICK) as publisher:
            wait_for(lambda: "Not authorized" in (publisher.last_error or ""))
    assert (
        f"the broker refuses the subscription to {TOPICS.root}/cmd/+: Not authorized; no command is received"
        in caplog.text
    )


@given(jitters=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3000))
@settings(deadline=None, max_examples=30)
def test_wait_doubles_up_to_the_longest_and_is_never_below_half_of_it(jitters: list[float]) -> None:
    values = iter(jitters)
    backoff = Backoff(BackoffLimits(first_retry_s=1.0, longest_retry_s=30.0, jitter=lambda: next(values)))
    for attempt in range(len(jitters)):
        ceiling_s = min(30.0, 2.0 ** min(attempt, 10))
        assert ceiling_s / 2 <= backoff.next_s() <= ceiling_s


@pytest.mark.parametrize(("lasted_s", "next_s"), [(29.0, 4.0), (30.0, 1.0)])
def test_the_wait_is_short_again_only_after_a_connection_that_lasted(lasted_s: float, next_s: float) -> None:
    backoff = Backoff(BackoffLimits(jitter=lambda: 1.0))
    backoff.next_s()
    backoff.next_s()
    backoff.note_connection(lasted_s)
    assert backoff.next_s() == next_s
