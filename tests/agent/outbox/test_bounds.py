from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.outbox.outbox import Kind, Outbox

if TYPE_CHECKING:
    from pathlib import Path

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
MIB = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


class Clock:
    """Monotonic, and moved by the test."""

    def __init__(self) -> None:
        self.now_s = 12345.0

    def __call__(self) -> float:
        return self.now_s

    def run(self, outbox: Outbox, duration_s: float, step_s: float = HOUR_S / 2) -> None:
        """Let time pass, with a checkpoint now and then."""
        for _ in range(round(duration_s / step_s)):
            self.now_s += step_s
            outbox.checkpoint()


def put(outbox: Outbox, record_id: str, kind: Kind = "result", *, created_at_ms: int = 1, size: int = 400) -> bool:
    return outbox.put(kind, record_id, f"root/{kind}", "x" * size, created_at_ms)


def ids(outbox: Outbox) -> list[str]:
    return [record.record_id for record in outbox.waiting(0, 1_000_000)]


@pytest.mark.slow
def test_room_that_records_take_is_bounded_and_results_go_first(path: Path) -> None:
    with Outbox(path, max_mib=1) as outbox:
        put(outbox, "alert", "alert")
        put(outbox, "other alert", "alert")
        for number in range(5000):
            put(outbox, str(number))
            if number % 100 == 0:
                outbox.checkpoint()
        outbox.checkpoint()
        kept = ids(outbox)
        assert kept == ["alert", "other alert", *(str(number) for number in range(5002 - len(kept), 5000))]
        assert MIB / 1.5 < 400 * len(kept) < MIB
        assert outbox.dropped == {"outbox_full_result": 5002 - len(kept)}
        assert outbox.depth() == len(kept)


def test_alerts_go_when_they_alone_take_too_much_room(path: Path) -> None:
    with Outbox(path, max_mib=1) as outbox:
        for number in range(300):
            put(outbox, str(number), "alert", size=8000)
        outbox.checkpoint()
        kept = ids(outbox)
        assert kept == [str(number) for number in range(300 - len(kept), 300)]
        assert MIB / 2 < 8000 * len(kept) < MIB
        assert outbox.dropped == {"outbox_full_alert": 300 - len(kept)}


@pytest.mark.slow
def test_results_are_dropped_by_age_and_alerts_are_not(path: Path) -> None:
    clock = Clock()
    with Outbox(path, max_age_days=2, clock_s=clock) as outbox:
        put(outbox, "alert", "alert")
        for number in range(120):
            put(outbox, f"first{number}")
        clock.run(outbox, DAY_S)
        put(outbox, "second")
        clock.run(outbox, DAY_S)
        assert outbox.depth() == 122
        clock.run(outbox, HOUR_S)
        assert ids(outbox) == ["alert", "second"]
        assert outbox.dropped == {"outbox_old_result": 120}
        clock.run(outbox, DAY_S)
        assert ids(outbox) == ["alert"]
        clock.run(outbox, 10 * DAY_S)
        assert ids(outbox) == ["alert"]
        assert outbox.dropped == {"outbox_old_result": 121}


def test_time_does_not_pass_while_the_agent_is_off(path: Path) -> None:
    clock = Clock()
    with Outbox(path, max_age_days=1, clock_s=clock) as outbox:
        put(outbox, "old")
        clock.run(outbox, 20 * HOUR_S)
    clock.now_s = 0.0  # another boot
    with Outbox(path, max_age_days=1, clock_s=clock) as outbox:
        put(outbox, "new")
        clock.run(outbox, 3 * HOUR_S)
        assert ids(outbox) == ["old", "new"]
        clock.run(outbox, 2 * HOUR_S)
        assert ids(outbox) == ["new"]


@pytest.mark.parametrize("created_at_ms", [0, 1_000, 1_700_000_000_000, 4_000_000_000_000])
def test_a_clock_that_is_wrong_or_set_makes_no_record_old(path: Path, created_at_ms: int) -> None:
    clock = Clock()
    with Outbox(path, max_age_days=1, clock_s=clock) as outbox:
        put(outbox, "made by a wrong clock", created_at_ms=created_at_ms)
        clock.run(outbox, 23 * HOUR_S)
        put(outbox, "made by a right one", created_at_ms=1_790_000_000_000)
        assert outbox.depth() == 2
        clock.run(outbox, 23 * HOUR_S)
        assert ids(outbox) == ["made by a right one"]


def test_records_put_after_a_restart_are_new_though_the_outbox_was_empty(path: Path) -> None:
    clock = Clock()
    with Outbox(path, max_age_days=1, clock_s=clock) as outbox:
        for number in range(100):
            put(outbox, str(number))
        clock.run(outbox, HOUR_S)
        outbox.forget([record.id for record in outbox.waiting(0, 1000)])
    with Outbox(path, max_age_days=1, clock_s=clock) as outbox:
        put(outbox, "new")
        assert outbox.last_id == 101
        clock.run(outbox, 23 * HOUR_S)
        assert ids(outbox) == ["new"]


@pytest.mark.slow
def test_a_month_of_hours_does_not_fill_the_file(path: Path) -> None:
    clock = Clock()
    with Outbox(path, max_age_days=2, clock_s=clock) as outbox:
        clock.run(outbox, 30 * DAY_S, step_s=HOUR_S)
        (hours,) = outbox._records.database.execute("SELECT count(*) FROM hour").fetchone()
    assert hours < 60


@pytest.mark.slow
def test_a_drained_outbox_gives_its_room_back_to_the_disk(path: Path) -> None:
    with Outbox(path) as outbox:
        for number in range(20_000):
            put(outbox, str(number))
        outbox.checkpoint()
        full_bytes = path.stat().st_size
        while outbox.depth() > 50:
            outbox.forget([record.id for record in outbox.waiting(0, 100)][: outbox.depth() - 50])
        for _ in range(5):  # every few seconds
            outbox.checkpoint()
        assert full_bytes > 8 * MIB
        assert path.stat().st_size < 2 * MIB
        assert path.with_name("outbox.db-wal").stat().st_size <= 16 * MIB
        assert ids(outbox) == [str(number) for number in range(19_950, 20_000)]
        put(outbox, "after")
        assert outbox.waiting(20_000, 10)[0].id == 20_001
