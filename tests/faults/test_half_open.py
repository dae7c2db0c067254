"""A line that is dead and does not say so, and one that is merely slow."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest
from bad_line import BadLine

from agent.backoff import BackoffLimits
from agent.messages.topics import SparkplugTopics, Topics
from agent.mqtt.connect import BrokerSettings, Will, connect
from agent.mqtt.publisher import Publisher, Station
from agent.outbox.outbox import Outbox
from agent.sparkplug.bd_seq import BdSeq
from agent.sparkplug.edge_node import EdgeNode
from tests.support.broker_clients import put_results
from tests.support.quiet import quiet_live_messages
from tests.support.real_broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

pytestmark = pytest.mark.waits

KEEPALIVE_S = 5
TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")
STATION = Station(
    session_id="session", version="1.2.3", state=lambda: ("running", ""), info=dict, alert_state=dict, health=dict
)
QUICK = BackoffLimits(first_retry_s=0.02, longest_retry_s=0.05)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        yield outbox


def over(line: BadLine, **more: object) -> BrokerSettings:
    return BrokerSettings(host="127.0.0.1", port=line.port, client_id="station1", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("waiting", [0, 10], ids=["idle", "sending"])
def test_a_half_open_line_is_found_within_the_keepalive_time_and_nothing_is_lost(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    outbox: Outbox,
    caplog: pytest.LogCaptureFixture,
    waiting: int,
) -> None:
    caplog.set_level(logging.INFO, "agent")
    mosquitto.start()
    listener = listen(mosquitto.port)
    with (
        BadLine(mosquitto.port) as line,
        Publisher(
            over(line, keepalive_s=KEEPALIVE_S, connect_timeout_s=1.0),
            TOPICS,
            outbox,
            STATION,
            quiet_live_messages(TOPICS),
            QUICK,
        ) as publisher,
    ):
        wait_for(lambda: publisher.connected)
        line.cut()
        ids = put_results(outbox, range(waiting), TOPICS.result)
        publisher.wake()
        wait_for(lambda: not publisher.connected, 60)
        line.heal()
        ids += put_results(outbox, range(5), TOPICS.result)
        listener.wait_for(lambda heard: len({result["resultId"] for result in heard.on("/result")}) == len(ids))
        wait_for(lambda: publisher.published == len(ids))
    assert list(dict.fromkeys(result["resultId"] for result in listener.on("/result"))) == ids
    said = next(record for record in caplog.records if "lost" in record.getMessage())
    assert "the broker has sent nothing for 2.5 s" in said.getMessage()


def test_a_line_that_is_idle_for_longer_than_the_keepalive_time_stays_up(mosquitto: Mosquitto) -> None:
    mosquitto.start()
    with BadLine(mosquitto.port) as line:
        connection = connect(over(line, keepalive_s=1), Will("plant/status", "{}"))
        until_s = time.monotonic() + 3.5
        while time.monotonic() < until_s:
            connection.service(10.0)
        assert connection.lost is None
        connection.close()


def test_a_slow_line_delivers_everything_once(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], outbox: Outbox
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    ids = put_results(outbox, range(200), TOPICS.result)
    with (
        BadLine(mosquitto.port, latency_s=0.2, bytes_per_s=50_000) as line,
        Publisher(
            over(line, keepalive_s=KEEPALIVE_S), TOPICS, outbox, STATION, quiet_live_messages(TOPICS), QUICK
        ) as publisher,
    ):
        wait_for(lambda: publisher.published == len(ids), 120)
        assert line.joined == 1
    assert [result["resultId"] for result in listener.on("/result")] == ids


def test_a_line_too_slow_for_a_window_of_sparkplug_data_is_not_taken_for_dead(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    mosquitto.start()
    topics = SparkplugTopics(group_id="acme", edge_node_id="station1", device_id="vision")
    with (
        Outbox(tmp_path / "sparkplug.sqlite") as outbox,
        BadLine(mosquitto.port, latency_s=0.2, bytes_per_s=10_000) as line,
        EdgeNode(
            over(line, keepalive_s=KEEPALIVE_S), topics, outbox, STATION, BdSeq(tmp_path / "birth"), QUICK
        ) as edge_node,
    ):
        put_results(outbox, range(150), TOPICS.result)
        edge_node.wake()
        wait_for(lambda: edge_node.published == 150, 120)
        assert line.joined == 1
