"""Results are counted once, whatever happens to the process, the file or the clock."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from agent.messages.records import Evaluation, Result, ResultCode, to_json
from agent.outbox.outbox import Outbox
from agent.statistics import tables
from agent.statistics.history import History
from agent.statistics.summary import Total, totals_between
from agent.statistics.tables import QUARTER_MS, counts_between, opened, results_between
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
WAIT_S = 20.0
EVER = (0, 2**52)


def result(number: int, evaluation: Evaluation = Evaluation.OK, created_at_ms: int = NOW_MS, **more: object) -> Result:
    return Result(
        result_id=f"{number:032x}",
        seq=number,
        part_id=f"P-{number}",
        created_at_ms=created_at_ms,
        evaluation=evaluation,
        score=50.0,
        threshold=100.0,
        **more,  # type: ignore[arg-type]
    )


def put(history: History, *results: Result) -> None:
    for each in results:
        history.put("result", each.record_id, "topic", to_json(each.payload()), each.created_at_ms)
    history.flush()


def total_of(path: Path) -> Total:
    database, total = opened(path), Total()
    for each in counts_between(database, *EVER):
        total.add(each)
    database.close()
    return total


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "statistics.sqlite"


@pytest.fixture
def history(path: Path) -> History:
    return History(path, 1000, clock_ms=lambda: NOW_MS)


def count_now(history: History) -> None:
    with history._writing:
        assert history._guarded(lambda database: tables.count(database, history._results_kept))


def test_every_result_is_counted_once_by_verdict_and_cause(history: History, path: Path) -> None:
    put(history, *[result(number) for number in range(5)])
    put(history, result(5, Evaluation.NOT_OK), result(6, Evaluation.NOT_DECIDABLE, code=ResultCode.BLURRED))
    count_now(history)
    put(history, result(7, Evaluation.NOT_OK, code=ResultCode.TOO_LATE), result(8, Evaluation.NOT_OK, zone="lid"))
    put(history, result(5, Evaluation.NOT_OK), result(8, Evaluation.NOT_OK, zone="lid"))  # once more
    for _ in range(2):  # before and after adding up
        total = total_of(path)
        assert (total.parts, total.verdicts[Evaluation.OK]) == (9, 5)
        assert total.rejects == pytest.approx(4 / 9)
        assert total.causes == {"defect": 1, "blurred": 1, "too late": 1, "defect in lid": 1}
        assert (total.mean_score, total.mean_threshold, total.highest) == (50.0, 100.0, 0.5)
        count_now(history)


def test_results_without_a_score_are_counted_and_change_no_mean(history: History, path: Path) -> None:
    nothing = {"score": float("nan"), "threshold": float("nan"), "seq": None, "part_id": None}
    missed = Result(created_at_ms=NOW_MS, evaluation=Evaluation.NOT_DECIDABLE, **nothing)  # type: ignore[arg-type]
    put(history, missed)
    assert (total_of(path).parts, total_of(path).mean_score, total_of(path).highest) == (1, None, None)
    put(history, result(1))
    count_now(history)
    assert (total_of(path).mean_score, total_of(path).highest) == (50.0, 0.5)


def test_alerts_are_no_results(history: History, path: Path) -> None:
    assert history.put("alert", "x", "topic", "{}", NOW_MS)
    assert total_of(path).parts == 0


def test_the_hour_is_known_after_a_restart_and_ends(path: Path) -> None:
    now = [NOW_MS]
    put(History(path, 1000, clock_ms=lambda: now[0]), result(1), result(2, Evaluation.NOT_OK))
    put(History(path, 1000, clock_ms=lambda: now[0]), result(3, created_at_ms=NOW_MS - HOUR_MS))  # a late one
    again = History(path, 1000, clock_ms=lambda: now[0])
    assert again.this_hour == {"ok": 1, "notOk": 1, "notDecidable": 0}
    put(again, result(4, Evaluation.NOT_DECIDABLE))
    assert again.this_hour == {"ok": 1, "notOk": 1, "notDecidable": 1}
    now[0] += HOUR_MS
    assert again.this_hour == {"ok": 0, "notOk": 0, "notDecidable": 0}


def test_single_results_are_kept_up_to_a_number_and_counts_stay(path: Path) -> None:
    history = History(path, 10, clock_ms=lambda: NOW_MS)
    put(history, *[result(number) for number in range(100)])
    count_now(history)
    kept = [each.seq for each in results_between(opened(path), *EVER)]
    assert kept == list(range(90, 100))
    assert total_of(path).parts == 100


def test_counts_are_bounded_the_oldest_go_first(history: History, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_COUNTS", 10)
    put(history, *[result(number, created_at_ms=NOW_MS + number * QUARTER_MS) for number in range(30)])
    count_now(history)
    quarters = [each.quarter for each in counts_between(opened(path), *EVER)]
    assert quarters == [NOW_MS // QUARTER_MS + number for number in range(19, 30)]


def test_a_locked_file_delays_counting_and_loses_nothing(history: History, path: Path) -> None:
    put(history, result(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    put(history, result(2), result(3))
    assert history.fault is not None
    assert history.this_hour["ok"] == 3
    other.execute("ROLLBACK")
    other.close()
    put(history, result(4))
    assert history.fault is None
    assert (history.not_counted, total_of(path).parts) == (0, 4)


def test_neither_put_nor_this_hour_waits_for_a_disk_that_hangs(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(history, result(1))
    hangs, continues = threading.Event(), threading.Event()

    def insert(*_: object) -> None:
        hangs.set()
        continues.wait(WAIT_S)

    monkeypatch.setattr("agent.statistics.history.insert", insert)
    put_later = threading.Thread(target=put, args=(history, result(2)))
    put_later.start()
    assert hangs.wait(WAIT_S)
    asked = threading.Thread(target=lambda: history.this_hour)
    added = threading.Thread(target=history.put, args=("result", "3", "topic", "{}", NOW_MS))
    for thread in (asked, added):
        thread.start()
        thread.join(WAIT_S / 4)
    are_done = not (asked.is_alive() or added.is_alive())
    continues.set()
    put_later.join()
    assert are_done
    assert history.this_hour["ok"] == 2


def test_what_cannot_be_written_for_too_long_is_not_counted_and_said(
    history: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.statistics.history._MOST_PENDING", 3)
    put(history, result(0))
    path.parent.chmod(0o500)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    put(history, *[result(number) for number in range(1, 6)])
    other.close()
    path.parent.chmod(0o700)
    put(history, result(6))
    assert history.not_counted == 3
    assert total_of(path).parts == 4


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300, b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_file_is_set_aside_and_counting_begins_again(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    history = History(path, 1000, clock_ms=lambda: NOW_MS)
    put(history, result(1))
    assert history.fault is None
    assert total_of(path).parts == 1
    assert [each.read_bytes() for each in path.parent.glob("*.corrupt-*")] == ([content] if content else [])


def test_a_file_damaged_while_it_is_used_is_replaced(history: History, path: Path) -> None:
    put(history, *[result(number) for number in range(50)])
    history._close()
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(30_000))
    put(history, result(50))
    count_now(history)
    assert history.fault is None
    assert total_of(path).parts in {1, 51}


def test_a_name_that_is_no_utf_8_is_kept_as_an_escape(history: History, path: Path) -> None:
    payload = json.dumps({**result(1).payload(), "partId": "A\ud800"})
    assert history.put("result", "1", "topic", payload, NOW_MS)
    assert history.flush()
    assert [each.part_id for each in results_between(opened(path), *EVER)] == ["A\\ud800"]


def test_in_the_background_counts_are_added_up_and_flushed(
    history: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.statistics.history._FLUSH_EVERY_S", 0.01)
    monkeypatch.setattr("agent.statistics.history._COUNT_EVERY_S", 0.01)
    reader = opened(path)
    with history:
        put(history, *[result(number) for number in range(20)])
        until(lambda: reader.execute("SELECT up_to FROM counted").fetchone()[0] == 20, WAIT_S)
    reader.close()
    assert total_of(path).parts == 20


# Hours, shifts, days

SHIFTS = {"early": 6 * 60, "late": 14 * 60, "night": 22 * 60}


def test_hours_shifts_and_days_are_those_of_the_clock_on_the_wall(
    history: History, path: Path, use_zone: Callable[[str], None]
) -> None:
    use_zone("Asia/Kolkata")  # half an hour off from the hours of UTC
    # 2026-09-21 14:43 UTC is 20:13 there.
    start_ms = NOW_MS - NOW_MS % QUARTER_MS
    put(history, *[result(number, created_at_ms=start_ms + number * QUARTER_MS) for number in range(24 * 4)])
    database = opened(path)

    def found(by: str) -> list[tuple[str, str, int]]:
        added = totals_between(database, *EVER, by, SHIFTS).items()  # type: ignore[arg-type]
        return [(f"{start:%m-%d %H:%M}", shift, total.parts) for (start, shift), total in added]

    hours = found("hour")
    assert sum(parts for *_, parts in hours) == 96
    assert all(start.endswith(":00") for start, *_ in hours)
    assert {parts for *_, parts in hours[1:-1]} == {4}
    shifts = found("shift")
    assert [shift for _, shift, _ in shifts] == ["late", "night", "early", "late"]
    assert [start[6:] for start, *_ in shifts] == ["14:00", "22:00", "06:00", "14:00"]
    assert [parts for *_, parts in shifts[1:3]] == [32, 32]
    assert [start[6:] for start, *_ in found("day")] == ["00:00", "00:00"]


def test_a_shift_that_began_yesterday_keeps_its_start_over_a_change_of_the_clock(
    history: History, path: Path, use_zone: Callable[[str], None]
) -> None:
    use_zone("Europe/Berlin")
    change_ms = 1_792_890_000_000  # 2026-10-25 01:00 UTC, when 03:00 becomes 02:00
    change_ms -= change_ms % QUARTER_MS
    put(history, *[result(each, created_at_ms=change_ms + (each - 8) * QUARTER_MS) for each in range(16)])
    (night,) = totals_between(opened(path), *EVER, "shift", SHIFTS).items()
    assert f"{night[0][0]:%m-%d %H:%M} {night[0][1]} {night[1].parts}" == "10-24 22:00 night 16"


# A process that is killed

KILLED = """
import json, sys
from pathlib import Path
from agent.outbox.background import BackgroundOutbox
from agent.statistics import history
history._FLUSH_EVERY_S, history._COUNT_EVERY_S = 0.005, 0.01
folder = Path(sys.argv[1])
outbox = BackgroundOutbox(folder / "outbox.sqlite")
recorded = outbox.waiting(0, 1000)
with history.History(folder / "statistics.sqlite", 100, recorded) as counting:
    outbox.before_forget = counting.flush
    outbox.forget([record.id for record in recorded])
    for number in range(int(sys.argv[2]), 10**9):
        payload = json.dumps({"resultEvaluation": 1, "seq": number, "score": 1.0, "threshold": 2.0})
        for store in (outbox, counting):
            store.put("result", str(number), "topic", payload, 1_790_000_000_000)
        print(number, flush=True)
        if number % 7 == 0:
            outbox.forget([record.id for record in outbox.waiting(0, 1000)])
"""


@pytest.mark.slow
@pytest.mark.faults
def test_a_process_that_is_killed_has_counted_what_it_recorded(path: Path) -> None:
    first = 0
    for turn in range(50 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 8):
        command = [sys.executable, "-c", KILLED, str(path.parent), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
            assert process.stdout is not None
            for _ in range(3 + 37 * turn):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().splitlines()
        last = int(said[-1]) if said else first + 2 + 37 * turn
        with Outbox(path.parent / "outbox.sqlite") as outbox:
            History(path, 100, outbox.waiting(0, 1000), clock_ms=lambda: NOW_MS)
        # What was recorded and not said is recorded again under the same identity.
        assert total_of(path).parts in {last + 1, last + 2}
        first = last + 1
