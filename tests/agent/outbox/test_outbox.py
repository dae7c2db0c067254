from __future__ import annotations

import itertools
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.errors import OutboxError
from agent.outbox.outbox import Kind, Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    with Outbox(path) as outbox:
        yield outbox


def put(outbox: Outbox, record_id: str, kind: Kind = "result") -> bool:
    return outbox.put(kind, record_id, f"root/{kind}", f'{{"id":"{record_id}"}}', 1)


def ids(outbox: Outbox) -> list[str]:
    return [record.record_id for record in outbox.waiting(0, 1_000_000)]


MAX_RECORDS = 5


class OutboxAgainstPlainList(RuleBasedStateMachine):
    """Whatever is done to it, the outbox holds what a list would hold, and every record is accounted for."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.outbox = Outbox(self.folder / "outbox.db", MAX_RECORDS)
        self.model: list[tuple[str, Kind]] = []
        self.fresh = (str(number) for number in itertools.count())
        self.offered = self.forgotten = self.dropped_before = 0

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)

    @rule(kind=st.sampled_from(["result", "result", "alert"]))
    def put_new(self, kind: Kind) -> None:
        record_id = next(self.fresh)
        self.offered += 1
        assert put(self.outbox, record_id, kind)
        self.model.append((record_id, kind))
        if len(self.model) > MAX_RECORDS:
            results = [entry for entry in self.model if entry[1] == "result"]
            self.model.remove(results[0] if results else self.model[0])

    @rule(data=st.data())
    def put_again(self, data: st.DataObject) -> None:
        if self.model:
            record_id, kind = data.draw(st.sampled_from(self.model))
            self.offered += 1
            assert not put(self.outbox, record_id, kind)

    @rule(data=st.data())
    def forget_some(self, data: st.DataObject) -> None:
        records = self.outbox.waiting(0, 100)
        chosen = data.draw(st.lists(st.sampled_from(records), unique=True)) if records else []
        assert self.outbox.forget([record.id for record in chosen]) == len(chosen)
        assert self.outbox.forget([record.id for record in chosen]) == 0
        self.forgotten += len(chosen)
        gone = {record.record_id for record in chosen}
        self.model = [entry for entry in self.model if entry[0] not in gone]

    @rule()
    def reopen(self) -> None:
        self.dropped_before += self.outbox.dropped.total()
        self.outbox.close()
        self.outbox = Outbox(self.folder / "outbox.db", MAX_RECORDS)

    @rule()
    def move_log_into_database(self) -> None:
        self.outbox.checkpoint()

    @invariant()
    def holds_what_a_list_would_hold(self) -> None:
        records = self.outbox.waiting(0, 100)
        assert [(record.record_id, record.kind) for record in records] == self.model
        assert [record.id for record in records] == sorted(record.id for record in records)
        assert self.outbox.depth() == len(self.model)

    @invariant()
    def accounts_for_every_record(self) -> None:
        dropped = self.dropped_before + self.outbox.dropped.total()
        assert self.offered == self.forgotten + self.outbox.depth() + dropped


TestOutboxAgainstPlainList = OutboxAgainstPlainList.TestCase
TestOutboxAgainstPlainList.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_record_comes_back_as_it_was_put(outbox: Outbox) -> None:
    outbox.put("alert", "a", "root/alert", '{"cause":"Öl"}', 17)
    (record,) = outbox.waiting(0, 10)
    assert record == (1, "a", "alert", "root/alert", '{"cause":"Öl"}', 17)


def test_waiting_continues_after_the_last_record_seen(outbox: Outbox) -> None:
    for number in range(10):
        put(outbox, str(number))
    first = outbox.waiting(0, 4)
    second = outbox.waiting(first[-1].id, 4)
    assert [record.record_id for record in first + second] == list("01234567")


def test_identities_are_not_used_twice_when_the_outbox_ran_empty(outbox: Outbox) -> None:
    put(outbox, "a")
    outbox.forget([1])
    put(outbox, "b")
    assert [record.id for record in outbox.waiting(1, 10)] == [2]


def test_smaller_limit_drops_the_oldest_results_at_opening(path: Path) -> None:
    with Outbox(path) as outbox:
        put(outbox, "alert", "alert")
        for number in range(5):
            put(outbox, str(number))
    with Outbox(path, max_records=3) as outbox:
        assert ids(outbox) == ["alert", "3", "4"]
        assert outbox.dropped == {"outbox_full_result": 3}


def test_alert_is_dropped_only_when_no_result_waits(path: Path) -> None:
    with Outbox(path, max_records=2) as outbox:
        for record_id, kind in [("r0", "result"), ("a0", "alert"), ("a1", "alert"), ("a2", "alert"), ("r1", "result")]:
            put(outbox, record_id, kind)  # type: ignore[arg-type]
        assert ids(outbox) == ["a1", "a2"]
        assert outbox.dropped == {"outbox_full_result": 2, "outbox_full_alert": 1}


def test_everything_put_is_there_after_sigkill(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from agent.outbox.outbox import Outbox\n"
        "outbox = Outbox(Path(sys.argv[1]))\n"
        "for number in range(10**9):\n"
        "    outbox.put('alert' if number % 50 == 0 else 'result', str(number), 't', '{}', 1)\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own script
        assert process.stdout is not None
        said = [next(process.stdout).strip() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        said += [line.strip() for line in process.stdout if line.endswith("\n")]
    with Outbox(path) as outbox:
        assert ids(outbox)[: len(said)] == said


def test_folder_that_is_missing_is_an_outbox_error(tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match="cannot open the outbox"):
        Outbox(tmp_path / "missing" / "outbox.db")


@pytest.mark.slow
def test_two_threads_put_and_drain_without_losing_any(outbox: Outbox) -> None:
    total = 2000
    seen: list[str] = []
    done = threading.Event()

    def drain() -> None:
        while len(seen) < total and not done.wait(0.001):
            records = outbox.waiting(0, 50)
            seen.extend(record.record_id for record in records)
            outbox.forget([record.id for record in records])
            outbox.checkpoint()

    drainer = threading.Thread(target=drain)
    drainer.start()
    for number in range(total):
        assert put(outbox, str(number))
    drainer.join(10)
    done.set()
    assert seen == [str(number) for number in range(total)]
    assert outbox.depth() == 0


def test_checkpoint_empties_the_log_into_the_database(outbox: Outbox, path: Path) -> None:
    for number in range(100):
        put(outbox, str(number))
    before = path.stat().st_size
    outbox.checkpoint()
    assert path.stat().st_size > before


def test_putting_a_result_takes_well_under_a_third_of_a_millisecond(outbox: Outbox) -> None:
    durations_s = []
    for number in range(1000):
        began_s = time.perf_counter()
        put(outbox, str(number))
        durations_s.append(time.perf_counter() - began_s)
    assert statistics.median(durations_s) < 0.3e-3
