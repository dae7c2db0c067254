from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import OutboxError
from agent.outbox.outbox import Kind, Outbox

VERSION_1 = """
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY,
    record_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
)
"""
OLD_RECORDS = [
    (number, f"old{number}", "alert" if number % 7 == 0 else "result", "root/Öfen", f'{{"seq":{number}}}', number)
    for number in range(5, 500)
]
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def put(outbox: Outbox, record_id: str, kind: Kind = "result") -> bool:
    return outbox.put(kind, record_id, f"root/{kind}", f'{{"id":"{record_id}"}}', 1)


def ids(outbox: Outbox) -> list[str]:
    return [record.record_id for record in outbox.waiting(0, 1_000_000)]


def write_version_1(path: Path, version: int = 1) -> None:
    """As the first version of the outbox did, which made the table before it noted the version."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(VERSION_1)
        database.execute("BEGIN")
        database.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", OLD_RECORDS)
        database.execute("COMMIT")
        database.execute(f"PRAGMA user_version = {version}")


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        return int(version)


@pytest.mark.parametrize("version", [0, 1])
def test_a_file_of_version_1_keeps_every_record(path: Path, version: int) -> None:
    write_version_1(path, version)
    with Outbox(path) as outbox:
        assert outbox.waiting(0, 1000) == OLD_RECORDS
        assert put(outbox, "new")
        assert outbox.waiting(499, 10)[0].id == 500
        assert outbox.dropped == {}
    assert version_of(path) == 2


DYING = """
import os, signal, sqlite3, sys
from functools import partial
from pathlib import Path
from agent.outbox.outbox import Outbox

class Dying(sqlite3.Connection):
    calls_left = int(sys.argv[2])

    def execute(self, *arguments):
        if Dying.calls_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Dying.calls_left -= 1
        return super().execute(*arguments)

sqlite3.connect = partial(sqlite3.connect, factory=Dying)
Outbox(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_migration_that_is_killed_anywhere_loses_nothing(tmp_path: Path) -> None:
    killed_in_version = {}
    for calls in range(100):
        path = tmp_path / f"{calls}.db"
        write_version_1(path)
        command = [sys.executable, "-c", DYING, str(path), str(calls)]
        result = subprocess.run(command, check=False)  # noqa: S603 - our own script
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL
        killed_in_version[calls] = version_of(path)
        with Outbox(path) as outbox:
            assert outbox.waiting(0, 1000) == OLD_RECORDS
    versions = list(killed_in_version.values())
    assert versions == sorted(versions), "it is the one or the other"
    assert versions.count(1) > 10
    assert versions.count(2) > 0


def test_newer_schema_is_refused_with_what_to_do(path: Path) -> None:
    Outbox(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
        database.execute(f"PRAGMA application_id = {0x53570000 + 99}")
    with pytest.raises(OutboxError, match=r"has schema 99, this version of shiftwatch knows 2\n  install the newer"):
        Outbox(path)


def test_corrupted_file_is_set_aside_and_the_agent_runs_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Outbox(path) as outbox:
        put(outbox, "old")
    path.write_bytes(b"not a database" * 1000)
    with Outbox(path) as outbox:
        assert put(outbox, "new")
        assert ids(outbox) == ["new"]
        assert outbox.dropped == {"outbox_corrupt": 1}, "at least one: nobody knows how many"
    (kept,) = path.parent.glob("outbox.db.corrupt-*")
    assert kept.read_bytes().startswith(b"not a database")
    assert "is replaced (file is not a database)" in caplog.text


def garble(path: Path, begin: int, end: int) -> None:
    content = bytearray(path.read_bytes())
    content[begin:end] = b"\xff" * (end - begin)
    path.write_bytes(content)


def test_records_outside_a_damaged_page_are_rescued_and_the_others_counted(path: Path) -> None:
    total = 1000
    with Outbox(path) as outbox:
        for number in range(total):
            put(outbox, str(number))
    garble(path, 20 * PAGE, 21 * PAGE)
    with Outbox(path) as outbox:
        rescued = ids(outbox)
        assert rescued == sorted(rescued, key=int)
        assert total - 100 < len(rescued) < total
        assert outbox.dropped == {"outbox_corrupt": total - len(rescued)}
        assert put(outbox, "new")
        assert ids(outbox) == [*rescued, "new"]
    assert list(path.parent.glob("outbox.db.corrupt-*"))


def test_records_are_rescued_when_only_the_index_is_damaged(path: Path) -> None:
    with Outbox(path) as outbox:
        for number in range(1000):
            put(outbox, str(number))
        (root,) = outbox._records.database.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name LIKE 'sqlite_autoindex_record%'"
        ).fetchone()
    garble(path, (root - 1) * PAGE, root * PAGE)
    with Outbox(path) as outbox:
        assert len(ids(outbox)) == 1000
        assert not put(outbox, "7"), "the index is whole again"


def test_record_with_a_flipped_bit_is_dropped_and_counted(path: Path) -> None:
    with Outbox(path) as outbox:
        for record_id in ("first", "second", "third"):
            put(outbox, record_id)
    content = path.read_bytes()
    place = content.index(b'{"id":"second"}')
    for flipped in (b'{"id":"sec\xfend"}', b'{"id":"sekond"}', b"["):
        path.write_bytes(content[:place] + flipped + content[place + len(flipped) :])
        with Outbox(path) as outbox:
            assert ids(outbox) == ["first", "third"]
            assert outbox.depth() == 2
            assert outbox.dropped == {"outbox_corrupt": 1}
        assert not list(path.parent.glob("*.corrupt-*"))
        path.write_bytes(content)


def test_file_that_becomes_corrupted_while_open_is_replaced(path: Path) -> None:
    with Outbox(path) as outbox:
        for number in range(10):
            put(outbox, str(number))
        outbox._records.database.execute("PRAGMA writable_schema = ON")
        outbox._records.database.execute("UPDATE sqlite_schema SET rootpage = 1000 WHERE name = 'record'")
        with closing(sqlite3.connect(path)) as other:  # another schema version makes SQLite read the schema again
            other.execute("PRAGMA schema_version = 77")
        assert put(outbox, "new")
        assert ids(outbox) == ["new"]
        assert outbox.waiting(10, 5)[0].id == 11
        assert outbox.dropped == {"outbox_corrupt": 10}
    assert list(path.parent.glob("outbox.db.corrupt-*"))


def test_outbox_that_cannot_be_replaced_at_once_is_replaced_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Outbox(path) as outbox:
        for number in range(1000):
            put(outbox, str(number), "alert" if number % 100 == 0 else "result")
        outbox.checkpoint()
        outbox._records.database.execute("PRAGMA cache_size = 0")
        garble(path, 20 * PAGE, 21 * PAGE)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", refuse)
            while outbox.fault is None:
                assert outbox.waiting(0, 1000) == []
            assert outbox.fault == "database disk image is malformed"
            assert not put(outbox, "meanwhile")
        outbox.checkpoint()
        assert outbox.fault is None
        assert put(outbox, "afterwards")
        assert ids(outbox)[-1] == "afterwards"
        assert outbox.depth() > 900
        assert outbox.depth() + outbox.dropped.total() == 1000 + 2


def refuse(*_: object) -> None:
    raise OSError(28, os.strerror(28))
