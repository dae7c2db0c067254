"""What the network of a factory does to one publisher."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from books import Arrivals
from test_half_open import QUICK, STATION, TOPICS

from agent.mqtt.connect import BrokerSettings, connect
from agent.mqtt.publisher import Publisher
from agent.outbox.outbox import Outbox
from tests.support.broker_clients import put_results
from tests.support.quiet import quiet_live_messages
from tests.support.real_broker import server_that_says, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.real_broker import Mosquitto

pytestmark = pytest.mark.waits


@contextmanager
def publishing(outbox: Outbox, port: int, **more: Any) -> Iterator[Publisher]:  # noqa: ANN401 - of the settings
    settings = BrokerSettings(**{"host": "127.0.0.1", "port": port, "client_id": "station1", **more})
    with Publisher(settings, TOPICS, outbox, STATION, quiet_live_messages(TOPICS), QUICK) as publisher:
        yield publisher


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        yield outbox


def test_a_broker_that_comes_back_with_another_receive_maximum_gets_everything_in_order(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    persistent = ["persistence true", f"persistence_location {mosquitto.folder}/"]  # a listener may be late
    mosquitto.start(*persistent, "max_inflight_messages 50")
    ids: list[str] = []
    with Arrivals(mosquitto.port) as arrivals, publishing(outbox, mosquitto.port) as publisher:
        for receive_maximum in (1, 7, 1000):
            wait_for(lambda: publisher.connected)
            mosquitto.stop()
            wait_for(lambda: not publisher.connected)
            ids += put_results(outbox, range(30), TOPICS.result)
            mosquitto.start(*persistent, f"max_inflight_messages {receive_maximum}")
            wait_for(lambda: outbox.depth() == 0)
        wait_for(lambda: len(arrivals.first) == 90)
        assert list(arrivals.first) == ids


def test_a_broker_that_shuts_down_is_quoted() -> None:
    with server_that_says(b"\x20\x03\x00\x00\x00" + b"\xe0\x02\x8b\x00") as port:
        connection = connect(BrokerSettings(host="127.0.0.1", port=port, client_id="s"), None)
        wait_for(lambda: connection.service(0.1) or connection.lost)
    assert connection.lost == "Server shutting down"


def test_a_broker_that_asks_for_more_frequent_signs_of_life_gets_them() -> None:
    with server_that_says(b"\x20\x06\x00\x00\x03\x13\x00\x02") as port:
        connection = connect(BrokerSettings(host="127.0.0.1", port=port, client_id="s", keepalive_s=30), None)
        assert connection.keepalive_s == 2
        wait_for(lambda: connection.service(10.0) or connection.lost)
    assert connection.lost == "the broker has sent nothing for 1 s"


def test_a_name_that_cannot_be_resolved_at_first_is_found_later(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    answers: list[str] = []

    def resolve_in_the_end(host: str, *more: Any) -> Any:  # noqa: ANN401 - as the real one
        answers.append(host)
        if len(answers) < 4:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", *more)

    mosquitto.start()
    monkeypatch.setattr("socket.getaddrinfo", resolve_in_the_end)
    put_results(outbox, range(3), TOPICS.result)
    with publishing(outbox, mosquitto.port, host="broker.plant.example") as publisher:
        wait_for(lambda: "Temporary failure in name resolution" in (publisher.last_error or "") or publisher.connected)
        wait_for(lambda: publisher.published == 3)
    assert answers == ["broker.plant.example"] * 4


def test_a_listening_port_that_never_answers_is_tried_again_and_again_and_served_when_it_does(
    mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    put_results(outbox, range(3), TOPICS.result)
    with socket.create_server(("127.0.0.1", mosquitto.port)) as mute:
        mute.settimeout(10)
        with publishing(outbox, mosquitto.port, connect_timeout_s=0.1) as publisher:
            lines = [mute.accept()[0] for _ in range(3)]
            assert "no answer within 0.1 s" in (publisher.last_error or "")
            for line in lines:
                line.close()
            mute.close()
            mosquitto.start()
            wait_for(lambda: publisher.published == 3)
    assert len([record for record in caplog.records if "no answer" in record.getMessage()]) == 1
