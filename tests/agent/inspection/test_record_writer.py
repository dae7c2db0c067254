from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.inspection import record_writer
from agent.inspection.record_writer import RecordWriter
from tests.support.fakes import FakeClock
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 10.0


class Disk:
    """Stores what it is given; hangs while it does not work."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.works = threading.Event()
        self.works.set()

    def storing(self, name: str) -> Callable[[], None]:
        def store() -> None:
            assert self.works.wait(PATIENCE_S)
            self.stored.append(name)

        return store


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.works.set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def a_writer(clock: FakeClock, why: str | None = None) -> RecordWriter:
    return RecordWriter(lambda: why, clock)


def test_what_is_written_is_stored_when_write_returns(disk: Disk, clock: FakeClock) -> None:
    with a_writer(clock) as writer:
        for number in range(100):
            writer.write("result", disk.storing(str(number)), PATIENCE_S)
            assert disk.stored[-1] == str(number)


def test_records_are_stored_in_the_order_in_which_they_were_written(disk: Disk, clock: FakeClock) -> None:
    with a_writer(clock) as writer:
        for number in range(200):
            writer.write("alert" if number % 7 == 0 else "result", disk.storing(str(number)))
    assert disk.stored == [str(number) for number in range(200)]
    assert not writer.dropped.total()


def test_a_disk_that_hangs_is_waited_for_once(disk: Disk, clock: FakeClock) -> None:
    disk.works.clear()
    with a_writer(clock) as writer:
        writer.write("result", disk.storing("first"), 0.05)
        began_s = time.monotonic()
        for number in range(1000):
            writer.write("result", disk.storing(str(number)), PATIENCE_S)
        assert time.monotonic() - began_s < PATIENCE_S / 2
        disk.works.set()
        until(lambda: len(disk.stored) == 1001)
        writer.write("result", disk.storing("last"), 0.0)
        until(lambda: disk.stored[-1] == "last")
        writer.write("result", disk.storing("waited for again"), PATIENCE_S)
        assert disk.stored[-1] == "waited for again"
    assert disk.stored[:3] == ["first", "0", "1"]


def test_what_nobody_waited_for_is_announced_when_it_is_stored(disk: Disk, clock: FakeClock) -> None:
    announced = threading.Event()
    with a_writer(clock) as writer:
        writer.notify = announced.set
        writer.write("result", disk.storing("awaited"), PATIENCE_S)
        assert not announced.is_set()
        writer.write("result", disk.storing("not awaited"))
        assert announced.wait(PATIENCE_S)


def test_of_too_many_the_oldest_results_are_dropped_and_counted(
    disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_writer, "_MOST_WAITING", 10)
    disk.works.clear()
    with a_writer(clock) as writer:
        writer.write("result", disk.storing("under way"))
        writer.write("alert", disk.storing("alert"))
        for number in range(20):
            writer.write("result", disk.storing(str(number)))
        assert writer.dropped == {"outbox_unwritable": 12}
        disk.works.set()
    assert disk.stored == ["under way", "alert", *map(str, range(12, 20))]


def test_a_disk_that_hangs_is_a_fault_after_five_seconds_logged_once_and_counted(
    disk: Disk, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk.works.clear()
    with a_writer(clock, "database is locked") as writer:
        writer.write("result", disk.storing("first"))
        clock.now_s += 4.9
        writer.write("result", disk.storing("second"))
        assert writer.fault is None
        assert writer.faults == 0
        clock.now_s += 0.2
        for number in range(5):
            writer.write("result", disk.storing(str(number)))
        assert writer.fault == "database is locked"
        assert writer.faults == 1
        disk.works.set()
        until(lambda: writer.fault is None)
        until(lambda: len(caplog.records) == 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "database is locked" in caplog.messages[0]


def test_a_disk_that_hangs_for_an_unknown_reason_does_not_answer(disk: Disk, clock: FakeClock) -> None:
    disk.works.clear()
    with a_writer(clock) as writer:
        writer.write("result", disk.storing("first"))
        clock.now_s += 6
        assert writer.fault == "the disk does not answer"
        disk.works.set()


def test_what_cannot_be_stored_before_the_end_is_counted(
    disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_writer, "_ENDS_WITHIN_S", 0.1)
    disk.works.clear()
    with a_writer(clock) as writer:
        for number in range(3):
            writer.write("result", disk.storing(str(number)))
    writer.write("result", disk.storing("after the end"))
    assert writer.dropped == {"outbox_unwritable": 4}


def test_a_writer_that_has_died_is_not_alive(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with a_writer(clock) as writer:
        assert writer.alive
        writer.write("result", lambda: 1 / 0)
        until(lambda: not writer.alive)
