"""A file system that is really full, and a neighbour that takes every byte that becomes free."""

from __future__ import annotations

import logging
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from neighbour import Neighbour

from agent.outbox.outbox import Kind, Outbox
from tests.support.stations import Agent, broken_parts, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

pytestmark = pytest.mark.waits

PAYLOAD = '{"text":"' + 390 * "x" + '"}'
"""As long as that of a result."""


def put(outbox: Outbox, number: int, kind: Kind = "result") -> bool:
    return outbox.put(kind, f"{kind}{number:032}", f"root/{kind}", PAYLOAD, 1)


def records(outbox: Outbox, kind: Kind) -> list[int]:
    waiting = outbox.waiting(0, 1_000_000)
    return [int(record.record_id.removeprefix(kind)) for record in waiting if record.kind == kind]


def fill(outbox: Outbox, count: int) -> None:
    for number in range(count):
        assert put(outbox, number)
        if number % 150 == 0:
            outbox.checkpoint()
    outbox.checkpoint()


def test_alerts_are_stored_on_a_full_disk_and_results_counted(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    neighbour = Neighbour(small_disk)
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        fill(outbox, 3000)
        neighbour.take_everything()
        stored = refused = 0
        for number in range(3000, 6000):
            if put(outbox, number):
                stored += 1
            else:
                refused += 1
            assert put(outbox, number, "alert"), (number, outbox.fault, outbox.dropped)
            neighbour.take_everything()
            if number % 150 == 0:
                outbox.checkpoint()
                neighbour.take_everything()
        assert outbox.fault is not None
        assert "space" in outbox.fault
        results = records(outbox, "result")
        assert records(outbox, "alert") == list(range(3000, 6000))
        assert results == sorted(results)
        assert outbox.dropped == {
            "outbox_unwritable": refused,
            "outbox_full_result": 3000 + stored - len(results),
        }
        assert outbox.dropped["outbox_full_result"] > 0, "the oldest results made room"
        assert outbox.depth() == 3000 + len(results)

        neighbour.leave()
        outbox.checkpoint()
        assert outbox.fault is None
        assert put(outbox, 6000)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        assert records(outbox, "alert") == list(range(3000, 6000))
        assert records(outbox, "result") == [*results, 6000]


def test_outbox_that_is_drained_has_room_again_though_the_disk_stays_full(small_disk: Path) -> None:
    neighbour = Neighbour(small_disk)
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        fill(outbox, 3000)
        neighbour.take_everything()
        number = 3000
        while outbox.fault is None:
            put(outbox, number)
            number += 1
            if number % 150 == 0:
                outbox.checkpoint()
        while outbox.depth() > 500:
            outbox.forget([record.id for record in outbox.waiting(0, 100)])
            outbox.checkpoint()
            neighbour.take_everything()
        assert outbox.fault is None
        for number in range(100_000, 101_000):
            assert put(outbox, number)
            if number % 150 == 0:
                outbox.checkpoint()
            neighbour.take_everything()
        neighbour.leave()


def test_alerts_are_counted_when_not_even_they_fit(small_disk: Path) -> None:
    neighbour = Neighbour(small_disk)
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        fill(outbox, 1000)
        neighbour.take_everything()
        outcomes = []
        for number in range(6000):
            outcomes.append(put(outbox, number, "alert"))
            if number % 150 == 0:
                outbox.checkpoint()
        stored = outcomes.count(True)
        assert outcomes[:1000] == [True] * 1000
        assert stored < len(outcomes)
        assert records(outbox, "result") == []
        assert records(outbox, "alert") == [number for number, is_stored in enumerate(outcomes) if is_stored]
        assert outbox.dropped["outbox_unwritable"] == len(outcomes) - stored
        neighbour.leave()


def test_putting_a_result_takes_no_time_while_the_disk_is_full(small_disk: Path) -> None:
    neighbour = Neighbour(small_disk)
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        fill(outbox, 100)
        neighbour.take_everything()
        number = 100
        while put(outbox, number):
            number += 1
        began_s = time.perf_counter()
        refused = 10_000
        for other in range(number, number + refused):
            assert not put(outbox, other)
        each_s = (time.perf_counter() - began_s) / refused
        neighbour.leave()
    assert each_s < 1e-3


def test_station_whose_disk_is_full_goes_on_counts_what_it_cannot_store_and_loses_no_alert(
    small_disk: Path, mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(5) + broken_parts(5))
    config = write_config(
        tmp_path,
        bundle,
        source,
        mosquitto.port,
        camera={"playback": "realtime", "frames_per_s": 50, "loop": True},
        archive={"enabled": False},
        state_dir=str(small_disk / "state"),
    )
    with Agent(config) as agent:
        listener.wait_for(lambda heard: len(heard.on("/health")) >= 3, 60)
        neighbour = Neighbour(small_disk)
        neighbour.take_everything()
        before = len(listener.on("/result"))
        listener.wait_for(lambda heard: len(heard.on("/result")) >= before + 300, 60)
        agent.end(signal.SIGTERM)
        neighbour.leave()
    listener.wait_for(lambda heard: heard.on("/status")[-1]["state"] == "offline")
    health = listener.on("/health")[-1]
    dropped = sum(count for reason, count in health["dropped"].items() if reason.startswith("outbox"))
    results = listener.on("/result")
    assert len(results) + dropped == health["results"], agent.log
    assert dropped < health["results"] / 4, agent.log  # until the publisher has made room, within seconds
    types_of = {
        alert["alertId"]: [one["type"] for one in listener.on("/alert") if one["alertId"] == alert["alertId"]]
        for alert in listener.on("/alert")
    }
    assert types_of
    assert all((types[0], types[-1]) == ("new", "end") for types in types_of.values())
    # An alert begins with the first broken part in a row: none of them is without its own.
    rows = [
        before["resultEvaluation"] == 1 and after["resultEvaluation"] == 2
        for before, after in pairwise(results)
        if after["seq"] == before["seq"] + 1
    ]
    assert len(types_of) >= sum(rows)
    assert {status["state"] for status in listener.on("/status")} <= {"running", "fault", "offline"}
