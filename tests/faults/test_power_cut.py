"""What a power cut, or a bad disk, may leave of the outbox's files, and what must be in them when the agent is back.

The model of a power cut: what was flushed is there. Of what was written since, each sector of 512 bytes is there, is
not, is zeros or is garbage, and the file may have grown or not. SQLite flushes the header of the log when the log
begins anew (`strace` shows it), and the log before a checkpoint touches the database; whatever else is known of
flushes here is whether SQLite was told to flush with a commit. What must be there is what `Outbox` promises: an alert
when `put` returns, all when `checkpoint` returns.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.outbox.outbox import Kind, Outbox

SECTOR = 512
LOG_HEADER = 32
MAX_RECORDS = 60
SEEDS = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Image:
    """The bytes of the database and of its log; the index of the log (-shm) lives in memory alone."""

    database: bytes
    log: bytes

    @classmethod
    def of(cls, path: Path) -> Image:
        log = path.with_name(f"{path.name}-wal")
        return cls(path.read_bytes(), log.read_bytes() if log.exists() else b"")

    def write(self, path: Path) -> None:
        path.write_bytes(self.database)
        path.with_name(f"{path.name}-wal").write_bytes(self.log)


def after_power_cut(flushed: bytes, written: bytes, seed: int) -> bytes:
    """What may be in a file; where both agree it stays, because a flush has been there or nothing was written."""
    random = np.random.default_rng(seed)
    length = max(len(flushed), len(written))
    old, new = (np.frombuffer(content.ljust(length, b"\0"), np.uint8) for content in (flushed, written))
    sectors = -(-length // SECTOR)
    chances = random.dirichlet((1, 1, 0.3, 0.3))
    fates = np.repeat(random.choice(4, sectors, p=chances), SECTOR)[:length]
    garbage = random.integers(0, 256, length, np.uint8)
    torn = np.where(old == new, old, np.choose(fates, (old, new, np.zeros(length, np.uint8), garbage)))
    end = random.integers(min(len(flushed), len(written)), length, endpoint=True)
    return torn[: random.choice(np.array([len(flushed), len(written), end]))].tobytes()


class PowerCuts(RuleBasedStateMachine):
    """After a power cut the outbox is as it was at a moment after the last flush, and no record is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.generation = 0
        self.fresh = itertools.count()
        self.payloads: dict[str, str] = {}
        self.model: list[tuple[str, Kind]] = []
        self.open()
        self.flushed = Image(self.path.read_bytes(), b"")
        self.possible: list[list[tuple[str, Kind]]] = [[]]

    def open(self) -> None:
        self.outbox = Outbox(self.path, MAX_RECORDS)
        self.flushes = self.is_full = False
        self.outbox._records.database.set_trace_callback(self.watch)

    def watch(self, statement: str) -> None:
        """A commit flushes where SQLite was told so."""
        if statement.startswith("PRAGMA synchronous"):
            self.is_full = statement.endswith("FULL")
        elif statement.startswith("INSERT"):
            self.flushes = self.is_full

    @property
    def path(self) -> Path:
        return self.folder / f"{self.generation}.db"

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)

    def note_flush(self) -> None:
        self.flushed = Image.of(self.path)
        self.note_promise()

    def note_promise(self) -> None:
        self.possible = [list(self.model)]

    def note_commit(self) -> None:
        self.possible.append(list(self.model))

    def put(self, kind: Kind, size: int) -> None:
        record_id = str(next(self.fresh))
        self.payloads[record_id] = record_id.ljust(size, ".")
        assert self.outbox.put(kind, record_id, kind, self.payloads[record_id], 1)
        self.model.append((record_id, kind))
        if self.flushes:
            self.note_flush()
        elif kind == "alert":
            self.note_promise()
        else:
            self.note_commit()
        if len(self.model) > MAX_RECORDS:
            results = [entry for entry in self.model if entry[1] == "result"]
            self.model.remove(results[0] if results else self.model[0])
            self.note_commit()

    @rule(count=st.integers(1, 30), size=st.sampled_from([10, 400, 9000]))
    def put_results(self, count: int, size: int) -> None:
        for _ in range(count):
            self.put("result", size)

    @rule(size=st.sampled_from([10, 300]))
    def put_alert(self, size: int) -> None:
        self.put("alert", size)

    @precondition(lambda self: self.model)
    @rule(limit=st.integers(1, 40))
    def drain(self, limit: int) -> None:
        delivered = self.outbox.waiting(0, limit)
        assert self.outbox.forget([record.id for record in delivered]) == len(delivered)
        self.model = self.model[len(delivered) :]
        self.note_commit()

    @rule()
    def checkpoint(self) -> None:
        self.outbox.checkpoint()
        self.note_flush()

    @rule()
    def stop_and_start(self) -> None:
        self.outbox.close()
        self.open()
        self.note_flush()

    @rule(seed=SEEDS)
    def cut_the_power(self, seed: int) -> None:
        written = Image.of(self.path)
        log_header = written.log[:LOG_HEADER]
        flushed_log = log_header + self.flushed.log[LOG_HEADER:]
        self.come_back(Image(self.flushed.database, after_power_cut(flushed_log, written.log, seed)))

    @rule(seed=SEEDS)
    def cut_the_power_in_a_checkpoint(self, seed: int) -> None:
        self.outbox._locked(self.outbox._check_writable)
        before = Image.of(self.path)
        assert self.outbox._flush()
        after = Image.of(self.path)
        self.note_promise()
        self.come_back(Image(after_power_cut(before.database, after.database, seed), before.log))

    def come_back(self, left: Image) -> None:
        self.outbox.close()
        self.generation += 1
        left.write(self.path)
        self.open()
        found = [(record.record_id, record.kind) for record in self.outbox.waiting(0, 1000)]
        assert found in self.possible
        assert "outbox_corrupt" not in self.outbox.dropped
        assert not list(self.folder.glob("*.corrupt-*"))
        self.model = found
        self.flushed = left
        self.possible = [list(found)]

    @invariant()
    def holds_what_was_put(self) -> None:
        records = self.outbox.waiting(0, 1000)
        assert [(record.record_id, record.kind) for record in records] == self.model
        assert all(record.payload == self.payloads[record.record_id] for record in records)
        assert [record.id for record in records] == sorted(record.id for record in records)


TestPowerCuts = PowerCuts.TestCase
TestPowerCuts.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

TOTAL = 600


def record(number: int) -> tuple[Kind, str, str, str, int]:
    kind: Kind = "alert" if number % 20 == 0 else "result"
    return kind, f"{number:032x}", f"root/{kind}", f'{{"seq":{number},"text":"{400 * "x"}"}}', number


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thirds of the records in the database, one in the log."""
    folder = tmp_path_factory.mktemp("left")
    with Outbox(folder / "open.db") as outbox:
        for number in range(TOTAL):
            outbox.put(*record(number))
            if number == TOTAL * 2 // 3:
                outbox.checkpoint()
        Image.of(folder / "open.db").write(folder / "left.db")
    return folder / "left.db"


# In the header, or anywhere; Hypothesis itself prefers small numbers.
PLACES = st.one_of(st.integers(0, 200), SEEDS.map(lambda seed: int(np.random.default_rng(seed).integers(2**22))))
DAMAGES = st.lists(
    st.tuples(
        st.sampled_from(["database", "log"]),
        PLACES,
        st.one_of(st.none(), st.tuples(st.integers(0, 255), st.sampled_from([1, 2, 8, SECTOR, 4096]))),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, place: int, by: tuple[int, int] | None) -> bytes:
    """Cut off there, or overwritten with so many bytes of this value."""
    place %= max(1, len(content))
    if by is None:
        return content[:place]
    value, length = by
    return content[:place] + bytes([value]) * length + content[place + length :]


@settings(max_examples=300)
@given(damages=DAMAGES)
def test_no_damage_to_the_files_keeps_the_agent_from_starting_or_makes_up_a_record(
    left: Path, damages: list[tuple[str, int, tuple[int, int] | None]]
) -> None:
    image = Image.of(left)
    contents = {"database": image.database, "log": image.log}
    for file, place, by in damages:
        contents[file] = damaged(contents[file], place, by)
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.db"
        Image(**contents).write(path)
        with Outbox(path) as outbox:
            assert outbox.put("alert", "new", "root/alert", "{}", TOTAL)
            found = []
            while outbox.depth():
                records = outbox.waiting(0, 100)
                found += records
                outbox.forget([each.id for each in records])
            assert found.pop()[1:] == ("new", "alert", "root/alert", "{}", TOTAL)
            for each in found:
                assert (each.kind, *each[1:2], *each[3:]) == record(each.id - 1)
            assert [each.id for each in found] == sorted({each.id for each in found})
            assert outbox.fault is None
    logging.disable(logging.NOTSET)
