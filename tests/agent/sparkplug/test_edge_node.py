"""The edge node against a real broker, with a host application that checks the rules of Sparkplug."""

from __future__ import annotations

import itertools
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.backoff import BackoffLimits
from agent.messages.records import Alert, to_json
from agent.messages.topics import SparkplugTopics
from agent.mqtt.connect import BrokerSettings
from agent.mqtt.connection import Acknowledgement
from agent.mqtt.publisher import Station
from agent.outbox.outbox import Outbox
from agent.sparkplug.bd_seq import BdSeq
from agent.sparkplug.delivery import SparkplugDelivery
from agent.sparkplug.edge_node import EdgeNode
from agent.sparkplug.session import PrimaryHost
from tests.support.broker_clients import put_reject, put_results, remember_connections
from tests.support.gate import Gate
from tests.support.real_broker import free_port, halt, server_that_says, wait_for
from tests.support.sparkplug_host import BOOLEAN, HOST_ID, INT64, HostApplication, Message, check_the_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.real_broker import Mosquitto

pytestmark = pytest.mark.waits

TOPICS = SparkplugTopics(group_id="acme", edge_node_id="station1", device_id="vision")
WITH_HOST = replace(TOPICS, primary_host_id=HOST_ID)
QUICK = BackoffLimits(health_every_s=0.05, first_retry_s=0.02, longest_retry_s=0.05, refused_retry_s=0.1)
QUIET = replace(QUICK, health_every_s=3600)
STATION = Station(
    session_id="session",
    version="1.2.3",
    state=lambda: ("running", ""),
    info=lambda: {"bundleHash": "b", "threshold": 2.0},
    alert_state=dict,
    health=lambda: {"timestamp": 1, "fps": 25.0, "dropped": {"superseded": 1}, "outboxDepth": -1},
)

LARGE_STATION = replace(STATION, health=lambda: {**STATION.health(), "drift": {"statistics": "x" * 3000}})


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "sparkplug.sqlite") as outbox:
        yield outbox


@pytest.fixture
def listen(mosquitto: Mosquitto) -> Iterator[Callable[[], HostApplication]]:
    """Makes host applications; checks at the end what each has received."""
    hosts: list[HostApplication] = []

    def make() -> HostApplication:
        hosts.append(HostApplication(mosquitto.port))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()
        check_the_rules(host.heard)


@pytest.fixture
def speak(
    mosquitto: Mosquitto, outbox: Outbox, tmp_path: Path, listen: Callable[[], HostApplication]
) -> Iterator[Callable[..., EdgeNode]]:
    """Starts edge nodes, and stops them at the end, while the hosts still listen."""
    del listen  # it is here so that the hosts are closed last
    edge_nodes: list[EdgeNode] = []

    def start(
        topics: SparkplugTopics = TOPICS, pace: BackoffLimits = QUIET, station: Station = STATION, **more: object
    ) -> EdgeNode:
        address = BrokerSettings(host="127.0.0.1", port=mosquitto.port, client_id="node")
        number = BdSeq(tmp_path / "birth")
        edge_nodes.append(EdgeNode(replace(address, **more), topics, outbox, station, number, pace))  # type: ignore[arg-type]
        edge_nodes[-1].start()
        return edge_nodes[-1]

    yield start
    for edge_node in edge_nodes:
        edge_node.stop()
        assert not edge_node.alive


def put_alert(edge_node: EdgeNode) -> Alert:
    alert = Alert(type="new", severity=500, cause="dark", started_at_ms=17)
    edge_node.put("alert", alert.record_id, "plain/alert", to_json(alert.payload()), 17)
    return alert


def birth_numbers(host: HostApplication) -> list[int]:
    return [birth["bdSeq"] for birth in host.on("NBIRTH")]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_births_come_first_and_data_after_them_in_order(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode], protocol: str
) -> None:
    mosquitto.start()
    host = listen()
    edge_node = speak(protocol=protocol)
    (node,), (device,) = host.wait_for("NBIRTH"), host.wait_for("DBIRTH")
    assert node.topic == "spBv1.0/acme/NBIRTH/station1"
    assert device.topic == "spBv1.0/acme/DBIRTH/station1/vision"
    types = {metric.name: metric.datatype for metric in node.metrics}
    assert (types["bdSeq"], types["Node Control/Rebirth"]) == (INT64, BOOLEAN)
    assert (node["bdSeq"], node["health/fps"], node["status/sessionId"]) == (0, 25.0, "session")
    assert {metric.value for metric in device.metrics} == {None}
    ids = put_results(edge_node, range(300, 900))
    wait_for(lambda: len(host.results()) == 600)
    assert host.results() == ids
    assert {message.is_historical for message in host.on("DDATA")} == {False}
    assert [message.metrics[0].timestamp_ms for message in host.on("DDATA")] == list(range(300, 900))
    assert host.on("DDATA")[0].topic == "spBv1.0/acme/DDATA/station1/vision"
    assert host.verbs() == ["NBIRTH", "DBIRTH", "DDATA"]
    wait_for(lambda: edge_node.published == 600)
    assert edge_node.waiting == 0


def test_what_waited_before_the_connection_is_historical(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode], outbox: Outbox
) -> None:
    before = put_results(outbox, range(250))
    mosquitto.start()
    host = listen()
    edge_node = speak()
    wait_for(lambda: len(host.results()) == 250)
    after = put_results(edge_node, range(250, 253))
    wait_for(lambda: len(host.results()) == 253)
    assert host.results() == before + after
    assert [message.is_historical for message in host.on("DDATA")] == [True] * 250 + [False] * 3


def test_a_rebirth_on_request_has_the_same_number_and_the_newest_values(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode]
) -> None:
    mosquitto.start()
    host = listen()
    edge_node = speak()
    host.wait_for("DBIRTH")
    alert = put_alert(edge_node)
    ids = put_results(edge_node, range(100, 103))
    wait_for(lambda: len(host.results()) == 3)
    host.command()
    device = host.wait_for("DBIRTH", 2)[1]
    assert birth_numbers(host) == [0, 0]
    assert [birth.seq for birth in host.on("NBIRTH")] == [0, 0]
    assert (device["result/resultId"], device["result/seq"]) == (ids[-1], 102)
    assert (device["alert/alertId"], device["alert/endTime"]) == (alert.alert_id, None)
    times = {metric.name: metric.timestamp_ms for metric in device.metrics}
    assert (times["result/seq"], times["alert/type"]) == (102, 17)
    ids += put_results(edge_node, range(103, 105))
    wait_for(lambda: len(host.results()) == 5)
    assert host.results() == ids
    assert host.on("NDEATH") == []


def test_a_host_that_missed_a_message_asks_and_gets_everything_again(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode]
) -> None:
    mosquitto.start()
    host = listen()
    edge_node = speak()
    host.wait_for("DBIRTH")
    put_results(edge_node, range(10))
    wait_for(lambda: len(host.results()) == 10)
    heard = [message.seq for message in host.heard if message.seq != 7]  # one is lost on its way
    gaps = [after for before, after in itertools.pairwise(heard) if after != ((before or 0) + 1) % 256]
    assert gaps == [8]
    host.command()
    host.wait_for("NBIRTH", 2)
    put_results(edge_node, range(10, 12))
    wait_for(lambda: len(host.results()) == 12)
    place = host.heard.index(host.on("NBIRTH")[1])
    assert [message.seq for message in host.heard[place:]] == [0, 1, 2, 3]


def test_what_is_no_request_for_a_rebirth_changes_nothing(
    mosquitto: Mosquitto,
    listen: Callable[[], HostApplication],
    speak: Callable[..., EdgeNode],
    caplog: pytest.LogCaptureFixture,
) -> None:
    mosquitto.start()
    host = listen()
    host.command(retain=True)
    edge_node = speak()
    host.wait_for("DBIRTH")
    host.send_command(b"\xff not protobuf")
    host.command(boolean_value=False)
    host.command("Node Control/Reboot")
    host.command(string_value="true")
    ids = put_results(edge_node, range(3))
    wait_for(lambda: len(host.results()) == 3)
    assert host.results() == ids
    assert len(host.on("NBIRTH")) == 1
    assert "are not a Sparkplug B payload" in caplog.text
    assert "that the broker has kept is ignored" in caplog.text
    host.command()
    host.wait_for("NBIRTH", 2)


def test_nothing_is_published_before_the_primary_host_is_online(
    mosquitto: Mosquitto,
    listen: Callable[[], HostApplication],
    speak: Callable[..., EdgeNode],
    caplog: pytest.LogCaptureFixture,
) -> None:
    mosquitto.start()
    host = listen()
    host.say_state(1000, online=False)
    edge_node = speak(WITH_HOST)
    wait_for(lambda: edge_node.connected)
    ids = put_results(edge_node, range(120))
    host.say_state(900, online=True)  # older than what was said before
    host.send_command(b"\xff not protobuf")
    wait_for(lambda: "not a Sparkplug B payload" in caplog.text)
    assert "older than the last" in caplog.text
    assert host.heard == []
    host.say_state(1000, online=True)
    wait_for(lambda: len(host.results()) == 120)
    assert host.verbs() == ["NBIRTH", "DBIRTH", "DDATA"]
    assert host.results() == ids
    assert {message.is_historical for message in host.on("DDATA")} == {True}


@pytest.mark.slow
def test_data_are_held_while_the_primary_host_is_away_and_come_in_order_when_it_is_back(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode]
) -> None:
    mosquitto.start()
    host = listen()
    host.say_state(1000, online=True)
    edge_node = speak(WITH_HOST)
    host.wait_for("DBIRTH")
    ids = put_results(edge_node, range(5))
    wait_for(lambda: edge_node.published == 5)
    host.say_state(1000, online=False)
    host.wait_for("NDEATH")
    wait_for(lambda: edge_node.connected)
    ids += put_results(edge_node, range(5, 300))
    host.say_state(2000, online=True)
    wait_for(lambda: len(host.results()) == 300)
    ids += put_results(edge_node, range(300, 302))
    wait_for(lambda: len(host.results()) == 302)
    assert host.results() == ids
    assert host.verbs() == ["NBIRTH", "DBIRTH", "DDATA", "DDEATH", "NDEATH", "NBIRTH", "DBIRTH", "DDATA"]
    assert birth_numbers(host) == [0, 1], "a new connection, with a new will"
    flags = [message.is_historical for message in host.on("DDATA")]
    assert flags == [False] * 5 + [True] * 295 + [False] * 2
    assert host.on("DBIRTH")[1]["result/resultId"] == ids[299], "births have the value of now"


def test_nothing_is_lost_when_the_broker_dies_and_comes_back(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode]
) -> None:
    mosquitto.start()
    first = listen()
    gate = Gate()
    edge_node = speak(pace=replace(QUIET, jitter=gate))
    first.wait_for("DBIRTH")
    ids = put_results(edge_node, range(20))
    wait_for(lambda: edge_node.published == 20)
    mosquitto.kill()
    assert gate.reached.wait(10)
    ids += put_results(edge_node, range(20, 200))
    mosquitto.start()
    second = listen()
    gate.open.set()
    wait_for(lambda: len(second.results()) == 180)
    assert first.results() + second.results() == ids
    assert {message.is_historical for message in second.on("DDATA")} == {True}
    assert birth_numbers(first) + birth_numbers(second) == [0, 1]


def test_what_a_dying_broker_did_not_take_is_sent_again(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode]
) -> None:
    mosquitto.start()
    gate = Gate()
    edge_node = speak(pace=replace(QUIET, jitter=gate))
    wait_for(lambda: edge_node.connected)
    assert mosquitto.process is not None
    halt(mosquitto.process)
    ids = put_results(edge_node, range(30))
    mosquitto.kill()
    assert gate.reached.wait(10)
    assert edge_node.waiting == 30
    mosquitto.start()
    host = listen()
    gate.open.set()
    wait_for(lambda: len(host.results()) == 30)
    assert host.results() == ids
    wait_for(lambda: edge_node.published == 30)


def test_the_will_of_a_cut_connection_ends_its_own_birth(
    mosquitto: Mosquitto,
    listen: Callable[[], HostApplication],
    speak: Callable[..., EdgeNode],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections = remember_connections(monkeypatch)
    mosquitto.start()
    host = listen()
    speak()
    for count in (1, 2, 3):
        host.wait_for("DBIRTH", count)
        connections[-1]._client.socket().shutdown(socket.SHUT_RDWR)
        host.wait_for("NDEATH", count)
    host.wait_for("DBIRTH", 4)
    assert birth_numbers(host) == [0, 1, 2, 3]
    assert [death["bdSeq"] for death in host.on("NDEATH")] == [0, 1, 2]
    late = listen()
    late.command()
    late.wait_for("DBIRTH")
    assert late.verbs() == ["NBIRTH", "DBIRTH"], "no death was retained"


def test_a_clean_stop_publishes_all_and_both_deaths_and_a_restart_continues_the_numbers(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode], outbox: Outbox
) -> None:
    mosquitto.start()
    host = listen()
    edge_node = speak()
    host.wait_for("DBIRTH")
    ids = put_results(edge_node, range(250))
    edge_node.stop(deadline_s=10)
    assert (edge_node.alive, edge_node.published, outbox.depth()) == (False, 250, 0)
    host.wait_for("NDEATH")
    assert host.results() == ids
    assert host.verbs()[-2:] == ["DDEATH", "NDEATH"]
    assert host.on("DDEATH")[0].metrics == ()
    put_results(outbox, range(3))
    speak().stop()
    host.wait_for("NDEATH", 2)
    assert birth_numbers(host) == [death["bdSeq"] for death in host.on("NDEATH")] == [0, 1]
    assert len(host.results()) == 253, "a short run has something to say, too"


def test_only_changed_metrics_of_the_node_are_published_again(
    mosquitto: Mosquitto, listen: Callable[[], HostApplication], speak: Callable[..., EdgeNode], outbox: Outbox
) -> None:
    mosquitto.start()
    host = listen()
    asked = itertools.count()
    station = replace(STATION, state=lambda: ("running", "") if next(asked) < 5 else ("lost", "no frames"))
    outbox.dropped["outbox_full_result"] += 2
    speak(pace=QUICK, station=station)
    (data,) = host.wait_for("NDATA")
    wait_for(lambda: next(asked) > 15)
    assert host.on("NDATA") == [data]
    assert data.topic == "spBv1.0/acme/NDATA/station1"
    assert {metric.name: metric.value for metric in data.metrics} == {
        "status/state": "lost",
        "status/reason": "no frames",
    }
    (birth,) = host.on("NBIRTH")
    assert birth["health/dropped"] == '{"superseded":1,"sparkplug: outbox_full_result":2}'
    assert birth["health/outboxDepth"] == 0


def test_an_edge_node_that_cannot_store_results_reports_a_fault(
    mosquitto: Mosquitto,
    listen: Callable[[], HostApplication],
    speak: Callable[..., EdgeNode],
    outbox: Outbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mosquitto.start()
    host = listen()
    monkeypatch.setattr(outbox, "checkpoint", lambda: None)  # it would find that all is well
    outbox.fault = "database or disk is full"
    speak()
    (birth,) = host.wait_for("NBIRTH")
    metrics = {metric.name: metric.value for metric in birth.metrics}
    assert metrics["status/state"] == "fault"
    assert metrics["status/reason"] == "results cannot be stored: database or disk is full"


@pytest.mark.slow
def test_a_refused_subscription_is_reported_once_with_the_right_that_is_missing(
    outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accepted, not_authorized = b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x87"
    with server_that_says(accepted + 2 * not_authorized) as port:
        address = BrokerSettings(host="127.0.0.1", port=port, client_id="node")
        with EdgeNode(address, TOPICS, outbox, STATION, BdSeq(tmp_path / "birth"), QUIET) as edge_node:
            wait_for(lambda: edge_node.last_error)
    (record,) = [record for record in caplog.records if "refuses" in record.getMessage()]
    assert "refuses subscriptions to spBv1.0/acme/NCMD/station1" in record.getMessage()
    assert "Not authorized" in record.getMessage()


def test_the_first_deadline_of_a_stop_stands(outbox: Outbox, tmp_path: Path) -> None:
    address = BrokerSettings(host="127.0.0.1", port=free_port(), client_id="node")
    edge_node = EdgeNode(address, TOPICS, outbox, STATION, BdSeq(tmp_path / "birth"), QUIET)
    edge_node.start()
    assert edge_node.ask_to_stop(0.1) == edge_node.ask_to_stop(3600)
    edge_node.stop()
    assert not edge_node.alive


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_data_above_the_brokers_limit_are_sent_without_what_a_host_can_do_without_or_dropped_alone(  # noqa: PLR0913, PLR0917 - what a station has
    mosquitto: Mosquitto,
    listen: Callable[[], HostApplication],
    speak: Callable[..., EdgeNode],
    outbox: Outbox,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    connections = remember_connections(monkeypatch)
    mosquitto.start("max_packet_size 1200")
    host = listen()
    edge_node = speak(protocol=protocol, station=LARGE_STATION, pace=replace(QUICK, health_every_s=0.2))
    host.wait_for("DBIRTH")
    before = put_results(edge_node, range(5))
    reject = put_reject(edge_node, 5, regions=16)
    put_reject(edge_node, 6, part_id="x" * 2000)
    after = put_results(edge_node, range(7, 30))
    wait_for(lambda: set(host.results()) == {*before, reject, *after} and edge_node.waiting == 0, 30)
    assert outbox.dropped == {"outbox_too_large": 1}
    assert host.on("NBIRTH")[-1]["health/drift"] is None
    assert host.on("NBIRTH")[-1]["health/fps"] == 25.0
    (data,) = {message["result/regions"] for message in host.on("DDATA") if message["result/resultId"] == reject}
    assert data is None
    wait_for(lambda: any("outbox_too_large" in str(_dropped(message)) for message in host.on("NDATA")))
    assert len(connections) <= (7 if protocol == "3.1.1" else 1)


def _dropped(message: Message) -> object:
    return message["health/dropped"] if "health/dropped" in message.names else None


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_births_that_no_shortening_makes_fit_leave_the_connection_and_the_records_alone(
    mosquitto: Mosquitto,
    speak: Callable[..., EdgeNode],
    outbox: Outbox,
    protocol: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mosquitto.start("max_packet_size 300")
    put_results(outbox, range(5))
    edge_node = speak(protocol=protocol, pace=replace(QUICK, refused_retry_s=3600))
    wait_for(lambda: edge_node.connected and "NBIRTH" in (edge_node.last_error or ""))
    assert "NBIRTH/station1: a packet of" in caplog.text
    assert "another agent" not in caplog.text
    assert edge_node.waiting == 5


class PaperConnection:
    """A connection that only counts."""

    keepalive_s = 30.0
    room = 1000

    def __init__(self) -> None:
        self.mids = itertools.count(1)
        self.asked: list[int] = []

    def subscribe(self, *_: object) -> int:
        self.asked.append(next(self.mids))
        return self.asked[-1]


class SilentSession:
    is_born = True

    def __init__(self) -> None:
        self.published = 0

    def publish_device_data(self, _metrics: object) -> bool:
        self.published += 1
        return True


def test_records_are_forgotten_when_the_broker_has_answered_what_was_asked_after_them(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("agent.sparkplug.delivery.time.monotonic", lambda: now_s)
    line, session = PaperConnection(), SilentSession()
    delivery = SparkplugDelivery(line, session, outbox, "question", window=10)  # type: ignore[arg-type]
    put_results(outbox, range(14))
    delivery.send()
    assert (session.published, line.asked) == (10, [1])
    delivery.send()
    assert (session.published, delivery.idle, delivery.stalled) == (10, False, False)
    assert delivery.settle([Acknowledgement(99, None)]) == 0
    assert delivery.settle([Acknowledgement(1, None)]) == 10
    delivery.send()
    assert (session.published, line.asked, outbox.depth()) == (14, [1], 4)
    assert delivery.due_at_s > now_s
    now_s = delivery.due_at_s
    delivery.send()
    assert line.asked == [1, 2]
    now_s += 31.0
    assert delivery.stalled
    assert delivery.settle([Acknowledgement(2, "Not authorized")]) == 4
    assert (delivery.idle, delivery.stalled, outbox.depth()) == (True, False, 0)
    put_results(outbox, range(14, 24))
    delivery.send()
    assert line.asked == [1, 2, 3], "a full window asks at once"


@pytest.mark.slow
def test_a_broker_that_answers_nothing_is_given_up(
    mosquitto: Mosquitto,
    listen: Callable[[], HostApplication],
    speak: Callable[..., EdgeNode],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("agent.mqtt.connection.Connection._ping_or_drop", lambda _: None)  # else the ping tells first
    mosquitto.start()
    host = listen()
    edge_node = speak(connect_timeout_s=0.2, keepalive_s=1, pace=QUICK)
    host.wait_for("DBIRTH")
    assert mosquitto.process is not None
    halt(mosquitto.process)
    put_results(edge_node, range(5))
    wait_for(lambda: "it answers nothing" in caplog.text)
    assert edge_node.waiting == 5
    mosquitto.process.send_signal(signal.SIGCONT)
    wait_for(lambda: edge_node.published == 5)


@pytest.mark.parametrize(
    "state",
    [
        b"ONLINE",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b'{"online": true}',
        b'{"online": "true", "timestamp": 5}',
        b'{"online": true, "timestamp": "5"}',
        b'{"online": true, "timestamp": 4}',
    ],
)
def test_a_state_that_is_old_or_malformed_changes_nothing(state: bytes, caplog: pytest.LogCaptureFixture) -> None:
    host = PrimaryHost(is_awaited=True)
    assert host.is_online is None
    host.update(b'{"online": false, "timestamp": 5, "more": 1}')
    host.update(state)
    assert host.is_online is False
    assert "ignored" in caplog.text
    host.update(b'{"online": true, "timestamp": 5}')
    assert host.is_online is True


def test_without_a_primary_host_none_is_waited_for() -> None:
    assert PrimaryHost(is_awaited=False).is_online is True


def test_birth_numbers_continue_after_a_restart_and_round_again(tmp_path: Path) -> None:
    path = tmp_path / "birth"
    numbers = []
    for before in (None, "0", "1", "254", "255"):
        if before is not None:
            path.write_text(before)
        number = BdSeq(path)
        numbers.append(number.to_use())
        assert number.note_accepted() == numbers[-1] == int(path.read_text())
    assert numbers == [0, 1, 2, 255, 0]


def test_an_attempt_that_no_broker_took_passes_its_number_on(tmp_path: Path) -> None:
    number = BdSeq(tmp_path / "birth")
    assert [number.to_use(), number.to_use(), number.note_accepted(), number.to_use()] == [0, 0, 0, 1]
    assert BdSeq(tmp_path / "birth").to_use() == 2, "1 may have been used by the process that died"


def test_a_birth_number_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "birth").write_text("nonsense")
    assert BdSeq(tmp_path / "birth").to_use() == 0
    number = BdSeq(tmp_path / "missing" / "birth")
    assert [number.to_use(), number.note_accepted(), number.to_use()] == [0, 0, 1]
    assert "cannot store the number of the Sparkplug birth" in caplog.text
