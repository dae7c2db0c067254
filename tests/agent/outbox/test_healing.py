"""The files of an open outbox are removed, replaced, cut, overwritten or locked by others."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.outbox.outbox import Kind, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOTAL = 300
NAMES = ("outbox.db", "outbox.db-wal", "outbox.db-shm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "outbox.db"


def put(outbox: Outbox, record_id: str, kind: Kind = "result") -> bool:
    return outbox.put(kind, record_id, f"root/{kind}", f'{{"id":"{record_id}","text":"{300 * "x"}"}}', 1)


def ids(outbox: Outbox) -> list[str]:
    return [record.record_id for record in outbox.waiting(0, 1_000_000)]


def remove_all(path: Path) -> None:
    for name in NAMES:
        path.with_name(name).unlink()


def remove_one(suffix: str) -> Callable[[Path], None]:
    return lambda path: path.with_name(path.name + suffix).unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_away(path: Path) -> None:
    path.rename(path.with_name("moved"))


def replace_by_another(path: Path) -> None:
    other = path.with_name("other.db")
    with Outbox(other) as outbox:
        put(outbox, "foreign")
    other.replace(path)


def restore_a_backup(path: Path) -> None:
    """As ``cp backup outbox.db`` does: the file stays, its content is an older one."""
    path.write_bytes(path.with_name("backup.db").read_bytes())


def write_garbage(begin: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(begin)
            file.write(os.urandom(200_000))

    return write


def cut(suffix: str, size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path.with_name(path.name + suffix), size)


def cut_both(path: Path) -> None:
    cut("", 0)(path)
    cut("-wal", 0)(path)


ACCIDENTS = {
    "all files removed": remove_all,
    "database removed": remove_one(""),
    "log removed": remove_one("-wal"),
    "index of the log removed": remove_one("-shm"),
    "folder removed": remove_folder,
    "moved away": move_away,
    "replaced by another outbox": replace_by_another,
    "overwritten with a backup": restore_a_backup,
    "garbage from the beginning": write_garbage(0),
    "garbage in the middle": write_garbage(20 * 4096),
    "cut": cut("", 5000),
    "emptied": cut("", 0),
    "log cut": cut("-wal", 5000),
    "log emptied": cut("-wal", 0),
    "all emptied": cut_both,
}


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
def test_whatever_happens_to_the_files_records_are_kept_and_publishing_goes_on(
    path: Path, accident: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(path) as outbox:
        put(outbox, "first")
        outbox.checkpoint()
        path.with_name("backup.db").write_bytes(path.read_bytes())
        for number in range(TOTAL):
            put(outbox, str(number))
            if number == TOTAL // 2:
                outbox.checkpoint()
        accident(path)
        assert put(outbox, "before it is noticed", "alert")
        for _ in range(3):  # every few seconds
            outbox.checkpoint()
        assert outbox.fault is None
        expected = ["first", *map(str, range(TOTAL)), "before it is noticed"]
        assert ids(outbox) == expected, "all of it was in memory"
        assert outbox.dropped == {}
        assert put(outbox, "after")
        outbox.checkpoint()
        assert outbox.depth() == len(expected) + 1
        assert outbox.forget([record.id for record in outbox.waiting(0, 100)]) == 100
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(errors) <= 1, [record.getMessage() for record in errors]
    assert outbox.faults == len(errors)
    with Outbox(path) as outbox:
        assert ids(outbox) == [*expected, "after"][100:]


def test_a_checkpoint_of_another_program_is_no_damage(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Outbox(path) as outbox:
        for number in range(TOTAL):
            put(outbox, str(number))
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        outbox.checkpoint()
        put(outbox, "after")
        assert len(ids(outbox)) == TOTAL + 1
        assert outbox.faults == 0
    assert caplog.records == []


def test_what_cannot_be_replaced_yet_is_kept_open_and_replaced_later(path: Path) -> None:
    with Outbox(path) as outbox:
        for number in range(TOTAL):
            put(outbox, str(number))
        shutil.rmtree(path.parent)
        path.parent.write_text("a file where the folder was")
        outbox.checkpoint()
        assert outbox.fault is not None
        assert not put(outbox, "lost")
        path.parent.unlink()
        outbox.checkpoint()
        outbox.checkpoint()
        assert outbox.fault is None
        assert ids(outbox) == [str(number) for number in range(TOTAL)]
        assert outbox.faults == 1
        assert outbox.dropped == {"outbox_unwritable": 1}


def test_a_replacement_that_was_not_renamed_is_used_at_the_next_start(path: Path) -> None:
    with Outbox(path) as outbox:
        put(outbox, "rescued")
    path.rename(path.with_name("outbox.db.new"))
    with Outbox(path) as outbox:
        assert ids(outbox) == ["rescued"]


def test_put_waits_while_another_program_locks_the_file_and_others_may_read_meanwhile(path: Path) -> None:
    with Outbox(path) as outbox, closing(sqlite3.connect(path, isolation_level=None)) as other:
        put(outbox, "before")
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=put, args=(outbox, "meanwhile"))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert outbox.locked_by == "database is locked"
        assert ids(outbox) == ["before"]
        assert outbox.forget([1]) == 0
        outbox.checkpoint()
        other.execute("ROLLBACK")
        waiting.join(10)
        assert not waiting.is_alive()
        assert outbox.forget([]) == 1, "what was acknowledged meanwhile"
        assert ids(outbox) == ["meanwhile"]
        assert (outbox.fault, outbox.faults, outbox.dropped) == (None, 0, {})


def test_closing_ends_a_wait_for_a_lock_and_counts_the_record(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        with Outbox(path) as outbox:
            other.execute("BEGIN IMMEDIATE")
            waiting = threading.Thread(target=put, args=(outbox, "lost"))
            waiting.start()
            waiting.join(0.3)
        waiting.join(10)
        assert not waiting.is_alive()
        assert outbox.dropped == {"outbox_unwritable": 1}
