from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.outbox import background
from agent.outbox.background import BackgroundOutbox
from agent.outbox.outbox import Outbox
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 10.0


@pytest.fixture
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundOutbox]:
    monkeypatch.setattr(background, "_PATIENCE_S", PATIENCE_S)
    with BackgroundOutbox(tmp_path / "outbox.db") as outbox:
        yield outbox


class Hanging:
    """A method of the outbox that hangs while a test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.works = threading.Event()
        self.is_called = threading.Event()
        method = getattr(Outbox, name)

        def hang(outbox: Outbox, *arguments: object) -> object:
            self.is_called.set()
            assert self.works.wait(PATIENCE_S)
            return method(outbox, *arguments)

        monkeypatch.setattr(Outbox, name, hang)


def put(outbox: Outbox, count: int) -> None:
    for number in range(count):
        assert outbox.put("result", str(number), "root/result", "{}", 1)


def ids(outbox: Outbox, after: int = 0) -> list[str]:
    return [record.record_id for record in outbox.waiting(after, 100)]


def test_it_is_an_outbox(outbox: BackgroundOutbox, tmp_path: Path) -> None:
    put(outbox, 5)
    assert ids(outbox) == ["0", "1", "2", "3", "4"]
    assert outbox.forget([1, 2]) == 2
    assert ids(outbox, 3) == ["3", "4"]
    outbox.checkpoint()
    assert outbox.depth() == 3
    outbox.close()
    with Outbox(tmp_path / "outbox.db") as again:
        assert ids(again) == ["2", "3", "4"]


@pytest.mark.parametrize("name", ["waiting", "forget", "checkpoint"])
def test_nothing_waits_for_a_disk_that_hangs(
    outbox: BackgroundOutbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    put(outbox, 5)
    monkeypatch.setattr(background, "_PATIENCE_S", 0.02)
    disk = Hanging(monkeypatch, name)
    late = threading.Event()
    outbox.notify = late.set
    began_s = time.monotonic()
    for _ in range(50):
        outbox.checkpoint()
        outbox.forget([1])
        assert outbox.waiting(0, 100) == [] or name != "waiting"
    assert time.monotonic() - began_s < 1.0
    assert disk.is_called.wait(PATIENCE_S)
    disk.works.set()
    if name != "checkpoint":
        assert late.wait(PATIENCE_S), "somebody was waiting"
    until(lambda: ids(outbox) == ["1", "2", "3", "4"])
    assert outbox.depth() == 4


def test_records_that_come_late_come_with_the_next_call(
    outbox: BackgroundOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, 5)
    monkeypatch.setattr(background, "_PATIENCE_S", 0.02)
    disk = Hanging(monkeypatch, "waiting")
    late = threading.Event()
    outbox.notify = late.set
    assert outbox.waiting(2, 2) == []
    disk.works.set()
    assert late.wait(PATIENCE_S)
    disk.works.clear()  # no second reading is needed
    assert [record.record_id for record in outbox.waiting(2, 2)] == ["2", "3"]
    disk.works.set()


def test_what_was_forgotten_late_is_counted_by_the_next_call(
    outbox: BackgroundOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, 5)
    disk = Hanging(monkeypatch, "forget")
    monkeypatch.setattr(background, "_PATIENCE_S", 0.02)
    assert outbox.forget([1, 2]) == 0
    assert outbox.forget([3]) == 0
    monkeypatch.setattr(background, "_PATIENCE_S", PATIENCE_S)
    disk.works.set()
    until(lambda: outbox.delivered == 3)
    assert outbox.forget([]) == 3
    assert ids(outbox) == ["3", "4"]


def test_it_waits_again_after_the_disk_has_caught_up(outbox: BackgroundOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    put(outbox, 5)
    disk = Hanging(monkeypatch, "forget")
    monkeypatch.setattr(background, "_PATIENCE_S", 0.02)
    assert outbox.forget([1]) == 0
    disk.works.set()
    until(lambda: outbox.delivered == 1)
    monkeypatch.setattr(background, "_PATIENCE_S", PATIENCE_S)
    until(lambda: not outbox._is_late)
    assert outbox.forget([2, 3]) == 3
    assert ids(outbox) == ["3", "4"]


def test_what_was_acknowledged_is_forgotten_before_it_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PATIENCE_S", 0.0)
    with BackgroundOutbox(tmp_path / "outbox.db") as outbox:
        put(outbox, 5)
        outbox.forget([1, 2, 3])
    with Outbox(tmp_path / "outbox.db") as again:
        assert ids(again) == ["3", "4"]


def test_a_record_that_is_too_large_is_dropped_without_waiting_for_it(
    outbox: BackgroundOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, 3)
    disk = Hanging(monkeypatch, "drop_too_large")
    outbox.drop_too_large(2)
    assert disk.is_called.wait(PATIENCE_S)
    assert outbox.depth() == 3
    disk.works.set()
    until(lambda: outbox.depth() == 2)
    assert ids(outbox) == ["0", "2"]
    assert outbox.dropped == {"outbox_too_large": 1}
