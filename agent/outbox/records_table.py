"""The records in one SQLite file: insert, read, delete, drop by number, room or age."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from agent.outbox.database_file import PAGE_BYTES, flushed_on_commit
from agent.outbox.schema import checksum, is_whole
from agent.outbox.watched_files import WatchedFiles

if TYPE_CHECKING:
    import sqlite3
    from collections import Counter
    from collections.abc import Sequence
    from pathlib import Path

Kind: TypeAlias = Literal["result", "alert"]

_INSERT = "INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)"
_FIRST = "SELECT id FROM record WHERE kind = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
# A file is shrunk when it has many free pages, and so few used ones that this takes about a millisecond.
_SMALL_PAGES = 64
_HUGE_PAGES = 1024
_RESERVE_PAGES = 256
_GROWTH_PAGES = 128


class Waiting(NamedTuple):
    """A record that the broker has not acknowledged; ``id`` grows with each record."""

    id: int
    record_id: str
    kind: Kind
    topic: str
    payload: str
    created_at_ms: int


class Pages(NamedTuple):
    """Pages of the file, of 4096 bytes each."""

    used: int
    free: int


class Records:
    """The records of one file.

    Args:
        database: An open connection to the file, with the current schema; closed by `close`.
        dropped: Counts each record that is dropped without having been delivered, by reason.
        last_id: New ids are above it, and above the highest in the file.

    Attributes:
        database: The connection.
        depth: Number of records.
        last_id: Highest id so far.
        is_open: `close` was not called.
        files: Shows what other programs did to the files.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, dropped: Counter[str], last_id: int = 0) -> None:
        self.database = database
        self._dropped = dropped
        # Open as long as SQLite has it: closing a file releases all locks that the process has on it.
        self._descriptor = os.open(path, os.O_RDWR)
        self.is_open = True
        self.depth: int
        self.depth, known_id = database.execute("SELECT count(*), coalesce(max(id), 0) FROM record").fetchone()
        self._hour, hour_id = database.execute(
            "SELECT coalesce(max(number), 0), coalesce(max(last_id), 0) FROM hour"
        ).fetchone()
        self.last_id: int = max(last_id, known_id, hour_id)
        self._no_result_up_to = 0
        self._old_up_to = 0
        self.files = WatchedFiles(path)

    def insert(self, record: Waiting) -> bool:
        """Commit a record, an alert with a flush to disk; False when its identity exists already."""
        row = (*record, checksum(*record))
        if record.kind == "alert":
            with flushed_on_commit(self.database):
                cursor = self.database.execute(_INSERT, row)
        else:
            cursor = self.database.execute(_INSERT, row)
        if cursor.rowcount != 1:
            return False
        self.last_id = record.id
        self.depth += 1
        return True

    def select(self, after: int, limit: int) -> list[Waiting]:
        """Up to ``limit`` records with an id above ``after``, oldest first; damaged ones are dropped."""
        rows = self.database.execute("SELECT * FROM record WHERE id > ? ORDER BY id LIMIT ?", (after, limit)).fetchall()
        whole = [row for row in rows if is_whole(row)]
        if len(whole) < len(rows):
            self.drop([row[0] for row in rows if not is_whole(row)], "outbox_corrupt")
        return [Waiting._make(row[:-1]) for row in whole]

    def delete(self, ids: Sequence[int]) -> int:
        """Delete records; returns how many of them existed."""
        with self.database:  # commits, or rolls back
            self.database.execute("BEGIN IMMEDIATE")
            removed = self.database.executemany("DELETE FROM record WHERE id = ?", [(id_,) for id_ in ids]).rowcount
        self.depth -= removed
        return removed

    def drop_first(self, count: int) -> None:
        """Drop the oldest results, and the oldest alerts when there are too few results."""
        dropped = self.drop_first_results(count)
        if dropped < count:
            self.drop(self._first("alert", count - dropped), "outbox_full_alert")

    def drop_first_results(self, count: int) -> int:
        """Drop the oldest results; returns how many there were."""
        # The search continues where the last one ended: it need not pass many alerts in front again and again.
        ids = self._first("result", count, after=self._no_result_up_to)
        self.drop(ids, "outbox_full_result")
        self._no_result_up_to = ids[-1] if len(ids) == count else self.last_id
        return len(ids)

    def pass_hours(self, hours: int, max_age_hours: int) -> None:
        """Note that hours have passed, and with them which results are old."""
        hour = self._hour + hours
        with self.database:  # commits, or rolls back
            self.database.execute("BEGIN IMMEDIATE")
            self.database.execute("INSERT INTO hour VALUES (?, ?)", (hour, self.last_id))
            (self._old_up_to,) = self.database.execute(
                "SELECT coalesce(max(last_id), 0) FROM hour WHERE number <= ?", (hour - max_age_hours,)
            ).fetchone()
            self.database.execute("DELETE FROM hour WHERE number < ?", (hour - max_age_hours,))
        self._hour = hour

    def drop_old_results(self, count: int) -> int:
        """Drop up to ``count`` results that are old by `pass_hours`; returns how many."""
        ids = self._first("result", count, up_to=self._old_up_to) if self._old_up_to else []
        self.drop(ids, "outbox_old_result")
        return len(ids)

    def pages(self) -> Pages:
        """Used and free pages."""
        (total,) = self.database.execute("PRAGMA page_count").fetchone()
        (free,) = self.database.execute("PRAGMA freelist_count").fetchone()
        return Pages(total - free, free)

    def reserve(self) -> None:
        """Keep a mebibyte of free pages in the file, which can be used when the disk is full.

        Raises:
            OSError: The disk is full already.
        """
        pages = self.pages()
        if pages.free >= _RESERVE_PAGES:
            return
        # First the room on the disk, then the pages: a checkpoint without room for its pages blocks the log.
        free = _RESERVE_PAGES + _GROWTH_PAGES
        begin = os.fstat(self._descriptor).st_size
        end = (pages.used + free + 1) * PAGE_BYTES
        if begin < end:
            os.posix_fallocate(self._descriptor, begin, end - begin)
            self.files.note_own_writes()
        self.fill(free * PAGE_BYTES)

    def fill(self, size_bytes: int) -> None:
        """Write some bytes and delete them again: leaves free pages, and fails if the file cannot be written."""
        with self.database:  # commits, or rolls back
            self.database.execute("BEGIN IMMEDIATE")
            self.database.execute("INSERT INTO filler VALUES (zeroblob(?))", (size_bytes,))
            self.database.execute("DELETE FROM filler")

    def shrink(self) -> None:
        """Return room to the disk, after much has been drained."""
        pages = self.pages()
        if pages.free >= _HUGE_PAGES and pages.used <= _SMALL_PAGES:
            self.database.execute("VACUUM")

    def close(self) -> None:
        """Close the file; doing it again does nothing."""
        if self.is_open:
            self.is_open = False
            self.database.close()
            os.close(self._descriptor)

    def _first(self, kind: Kind, count: int, *, after: int = 0, up_to: int | None = None) -> list[int]:
        rows = self.database.execute(_FIRST, (kind, after, self.last_id if up_to is None else up_to, count))
        return [id_ for (id_,) in rows]

    def drop(self, ids: Sequence[int], reason: str) -> None:
        """Delete records that were not delivered, and count them."""
        if ids:
            self._dropped[reason] += self.delete(ids)
