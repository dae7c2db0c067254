"""A message that is too large for the broker must not block the others, whichever way the broker shows its limit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import BackoffLimits
from agent.messages.records import ResultCode
from agent.messages.topics import Topics
from agent.mqtt.connect import BrokerSettings, connect
from agent.mqtt.packet_limit import PacketLimit, Sent
from agent.mqtt.publisher import Publisher, Station
from agent.outbox.outbox import Outbox
from agent.trigger.part import Part
from tests.support.broker_clients import put_reject, put_results, remember_connections
from tests.support.published import problems
from tests.support.quiet import quiet_handshake, quiet_live_messages
from tests.support.real_broker import Listener, Mosquitto, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.mqtt.connect import Protocol

pytestmark = pytest.mark.waits

TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")
QUICK = BackoffLimits(health_every_s=0.2, first_retry_s=0.02, longest_retry_s=0.05, refused_retry_s=0.3)
QUIET = replace(QUICK, health_every_s=3600.0)
LIMIT_BYTES = 700
ANNOUNCED, REFUSES, HANGS_UP = ("5", "max_packet_size"), ("5", "message_size_limit"), ("3.1.1", "max_packet_size")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as outbox:
        yield outbox


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return remember_connections(monkeypatch)


def a_station(**contents: dict[str, Any]) -> Station:
    return Station(
        session_id="session",
        version="1.2.3",
        state=lambda: ("running", "started"),
        info=lambda: contents.get("info", {"bundleHash": "b"}),
        alert_state=lambda: {"active": []},
        health=lambda: contents.get("health", {"fps": None, "dropped": {"duplicate": 1}}),
    )


def publisher_of(port: int, outbox: Outbox, protocol: Protocol, pace: BackoffLimits = QUIET, **more: Any) -> Publisher:  # noqa: ANN401 - of the station
    address = BrokerSettings(host="127.0.0.1", port=port, client_id="station1", protocol=protocol)
    live = quiet_live_messages(TOPICS, more.pop("handshake", None))
    return Publisher(address, TOPICS, outbox, a_station(**more), live, pace)


@pytest.mark.parametrize("way", [ANNOUNCED, REFUSES, HANGS_UP])
def test_a_result_above_the_limit_arrives_with_fewer_regions_and_the_others_whole(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    outbox: Outbox,
    connections: list[Any],
    way: tuple[Protocol, str],
) -> None:
    protocol, setting = way
    mosquitto.start(f"{setting} {LIMIT_BYTES}")
    listener = listen(mosquitto.port)
    before = put_results(outbox, range(5), TOPICS.result)
    rejects = [put_reject(outbox, number, topic=TOPICS.result) for number in range(5, 40)]
    after = put_results(outbox, range(40, 60), TOPICS.result)
    with publisher_of(mosquitto.port, outbox, protocol) as publisher:
        wait_for(lambda: publisher.waiting == 0)
        listener.wait_for(lambda heard: {each["resultId"] for each in heard.on("/result")} >= {*after})
    heard = {each["resultId"]: each for each in listener.on("/result")}
    assert heard.keys() == {*before, *rejects, *after}
    assert all(problems("result", each) == [] for each in heard.values())
    assert all(len(heard[each]["regions"]) < 8 and heard[each]["score"] == 9.0 for each in rejects)
    assert all(
        [region["x"] for region in heard[each]["regions"]] == [*range(len(heard[each]["regions"]))] for each in rejects
    )
    assert outbox.dropped.total() == 0
    assert len(connections) == (3 if way == HANGS_UP else 1)
    if way == ANNOUNCED:
        assert all(heard[each]["regions"] for each in rejects), "as many as fit"


@pytest.mark.slow
@pytest.mark.parametrize("way", [ANNOUNCED, REFUSES, HANGS_UP])
def test_a_record_that_cannot_be_shortened_is_dropped_alone_and_counted_and_logged_with_size_and_limit(  # noqa: PLR0913, PLR0917 - what a station has
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    outbox: Outbox,
    connections: list[Any],
    way: tuple[Protocol, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    protocol, setting = way
    mosquitto.start(f"{setting} {LIMIT_BYTES}")
    listener = listen(mosquitto.port)
    put_reject(outbox, 0, part_id="first " + "x" * 2000, regions=0, topic=TOPICS.result)
    before = put_results(outbox, range(1, 5), TOPICS.result)
    put_reject(outbox, 5, part_id="x" * 2000, topic=TOPICS.result)
    outbox.put("alert", "alert", TOPICS.alert, json.dumps({"cause": "x" * 3000}), 6)
    after = put_results(outbox, range(7, 20), TOPICS.result)
    with publisher_of(mosquitto.port, outbox, protocol) as publisher:
        wait_for(lambda: publisher.waiting == 0)
        wait_for(lambda: publisher.published == 17)
        assert publisher.last_error is not None
        assert "above the broker's limit of" in publisher.last_error
        assert publisher.connected
    assert {each["resultId"] for each in listener.on("/result")} == {*before, *after}
    assert outbox.dropped == {"outbox_too_large": 3}
    assert len(connections) <= (5 if way == HANGS_UP else 1)
    assert "another agent" not in caplog.text
    (line,) = [record.getMessage() for record in caplog.records if f"{TOPICS.result}: a packet" in record.getMessage()]
    assert "bytes is above the broker's limit of" in line
    assert "max_packet_size" in line
    if way == ANNOUNCED:
        assert f"limit of {LIMIT_BYTES} bytes" in line


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_other_messages_above_the_limit_are_shortened_or_counted_and_records_pass(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    outbox: Outbox,
    connections: list[Any],
    protocol: Protocol,
) -> None:
    mosquitto.start(f"max_packet_size {LIMIT_BYTES}")
    listener = listen(mosquitto.port)
    health = {"captured": 17, "drift": {"statistics": "x" * 3000}, "dropped": {"duplicate": 1}}
    station = {"info": {"bundleHash": "x" * 2000}, "health": health}
    with publisher_of(mosquitto.port, outbox, protocol, QUICK, **station) as publisher:
        wait_for(lambda: publisher.connected)
        ids = put_results(outbox, range(30), TOPICS.result)
        publisher.wake()
        wait_for(lambda: publisher.published == 30)
        listener.wait_for(lambda heard: any("too large: info" in each["dropped"] for each in heard.on("/health")))
        count = len(connections)
        listener.wait_for_more("/health", len(listener.on("/health")) + 3)
        assert len(connections) == count <= (5 if protocol == "3.1.1" else 1)
    assert {each["resultId"] for each in listener.on("/result")} == {*ids}
    assert listener.on("/status")[0]["online"]
    last = listener.on("/health")[-1]
    assert (last["captured"], last["drift"]) == (17, None)
    assert last["dropped"]["too large: info"] >= 1
    assert last["dropped"]["duplicate"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_controller_is_answered_at_once_while_a_record_is_too_large(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox, protocol: Protocol
) -> None:
    mosquitto.start(f"max_packet_size {LIMIT_BYTES}")
    listener = listen(mosquitto.port)
    handshake = quiet_handshake()
    with publisher_of(mosquitto.port, outbox, protocol, handshake=handshake) as publisher:
        for number in range(4):
            wait_for(lambda: publisher.connected and publisher.waiting == 0)
            put_reject(outbox, number, part_id="x" * 2000, topic=TOPICS.result)
            put_results(outbox, [number], TOPICS.result)
            publisher.wake()
            handshake.refuse(Part(f"first {number}", 0, 0), ResultCode.PAUSED)
            publisher.wake()
            wait_for(lambda: publisher.waiting == 0)
            handshake.refuse(Part(f"second {number}", 0, 0), ResultCode.PAUSED)
            publisher.wake()
            name = f"second {number}"
            listener.wait_for(lambda heard, name=name: any(each["partId"] == name for each in heard.on("/plc")), 2.0)  # type: ignore[misc]


@pytest.mark.slow
def test_a_limit_that_is_lowered_and_raised_while_the_agent_runs_is_noticed(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox
) -> None:
    mosquitto.start()
    with publisher_of(mosquitto.port, outbox, "3.1.1") as publisher:
        for limit, fits in ((0, True), (LIMIT_BYTES, False), (0, True)):
            mosquitto.stop()
            mosquitto.start(*([f"max_packet_size {limit}"] if limit else []))
            listener = listen(mosquitto.port)
            wait_for(lambda: publisher.connected)
            put_results(outbox, [1], TOPICS.result)
            put_reject(outbox, 2, topic=TOPICS.result)
            put_results(outbox, [3], TOPICS.result)
            publisher.wake()
            wait_for(lambda: publisher.waiting == 0)
            listener.wait_for(lambda heard: any(each["seq"] == 3 for each in heard.on("/result")))
            (reject,) = {len(each["regions"]) for each in listener.on("/result") if each["seq"] == 2}
            assert (reject == 8) == fits
    assert outbox.dropped.total() == 0


def test_sizes_are_those_of_the_packets_on_the_wire(mosquitto: Mosquitto) -> None:
    """Mosquitto ends the connection at one byte more than it has announced."""
    mosquitto.start("max_packet_size 2000")
    for payload_bytes in range(1900, 2000):
        connection = connect(BrokerSettings(host="127.0.0.1", port=mosquitto.port, client_id="c"), None)
        assert connection.limit.size_bytes == 2000
        for qos, expires_s in ((0, None), (1, 7)):
            connection.publish("a/b", "x" * payload_bytes, qos=qos, retain=False, expires_s=expires_s)  # type: ignore[arg-type]
        last = connection.publish("a/b", "last", qos=1, retain=False)
        answers = []
        while connection.lost is None and last not in answers:
            answers += [answer.mid for answer in connection.service(1.0)]
        assert connection.lost is None
        connection.close()


@given(
    limit=st.integers(200, 3000),
    sizes=st.lists(st.integers(100, 4000), min_size=1, max_size=60),
    window=st.integers(1, 20),
)
def test_a_broker_that_hangs_up_gets_all_that_it_takes_of_a_topic_after_few_connections(
    limit: int, sizes: list[int], window: int
) -> None:
    """The broker is a loop here; records cannot be shortened. Those between its limit and what it took may be lost."""
    known = PacketLimit()
    known.note_connection(None)
    waiting, taken, dropped, losses = list(sizes), [90], [], 0
    known.note_taken(Sent("result", 90))
    while waiting:
        losses += 1
        assert losses < 100
        under_way: list[int] = []
        lost = False
        while waiting and not lost:
            first = waiting.pop(0)
            if first > known.size_bytes:
                assert known.is_certain("result")
                dropped.append(first)
                continue
            under_way.append(first)
            if len(under_way) < (1 if known.is_careful else window) and waiting:
                continue
            while under_way and not lost:
                lost = under_way[0] > limit
                if not lost:
                    taken.append(under_way[0])
                    known.note_taken(Sent("result", under_way.pop(0)))
        if lost:
            known.note_loss([Sent("result", size) for size in under_way], is_stated=False)
            waiting = under_way + waiting
            known.note_taken(Sent("status", 90))
    assert max(taken) <= limit
    assert all(size > (limit + 90) / 2 for size in dropped) or not dropped


def test_a_broker_that_ends_connections_for_another_reason_makes_no_limit() -> None:
    known = PacketLimit()
    known.note_connection(None)
    known.note_taken(Sent("status", 300))
    for _ in range(10):
        assert known.note_loss([Sent("result", 250), Sent("", 400)][:1], is_stated=False) is None
        known.note_taken(Sent("status", 300))
    assert known.size_bytes > 10**8
    assert not known.is_careful
    known.note_loss([Sent("result", 500)], is_stated=False)
    assert known.is_careful
    known.note_loss([], is_stated=False)
    assert not known.is_careful


def test_a_broker_that_states_the_size_as_the_reason_for_the_end_is_believed_at_once() -> None:
    known = PacketLimit()
    known.note_connection(None)
    known.note_taken(Sent("status", 300))
    reason = known.note_loss([Sent("result", 500), Sent("result", 900)], is_stated=True)
    assert reason is not None
    assert "900 bytes" in reason
    assert known.size_bytes == 899
    assert known.is_careful, "it may have been the other one"
    assert known.is_certain("alert")


def test_two_breaks_a_long_time_apart_are_no_sign_of_a_limit() -> None:
    known = PacketLimit()
    known.note_connection(None)
    known.note_taken(Sent("status", 300))
    known.note_loss([Sent("result", 900)], is_stated=False)
    for _ in range(200):
        known.note_taken(Sent("result", 500))
    assert not known.is_careful
    known.note_loss([Sent("result", 900)], is_stated=False)
    assert known.size_bytes > 10**8


def test_a_limit_that_only_breaks_show_gives_nothing_up_before_a_connection_has_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("agent.mqtt.packet_limit.time.monotonic", lambda: now_s)
    known = PacketLimit(trusted_after_s=36.0)
    for _ in range(2):
        known.note_connection(None)
        known.note_taken(Sent("result", 300))
        known.note_loss([Sent("result", 900)], is_stated=False)
    known.note_connection(None)
    assert 300 < known.size_bytes < 900
    now_s += 35.0
    assert not known.is_certain("result")
    now_s += 1.0
    assert known.is_certain("result")
    known.note_connection(500)
    assert known.is_certain("result") == (known.size_bytes == 500)
