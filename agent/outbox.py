"""Records on disk from the moment they are made until the broker has them.

One SQLite file in WAL mode. The loop puts, the publisher reads and forgets; both share one connection under a lock,
which is faster for the putter than two connections that wait for each other inside SQLite. The slow part, copying
the log into the database with its flushes to disk, is left to `checkpoint`, which does not hold the lock.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from agent.errors import OutboxError
from agent.outbox_file import checkpoint, flushed_on_commit, is_corruption, open_or_replace, set_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Self

T = TypeVar("T")
Kind: TypeAlias = Literal["result", "alert"]

log = logging.getLogger(__name__)

_INSERT = "INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?)"


class Waiting(NamedTuple):
    """A record that the broker has not acknowledged; ``id`` grows in the order of putting."""

    id: int
    record_id: str
    kind: Kind
    topic: str
    payload: str
    created_at_ms: int


class Outbox:
    """Records that wait for the broker, oldest first; safe to use from two threads.

    Every record that was put is then either waiting, forgotten, or counted in ``dropped``. No method raises because
    of the disk once the outbox is open: a record that cannot be stored is counted, and the loop runs on.

    Args:
        path: Database file; its directory must exist.
        max_records: When more would wait, the oldest result is dropped, and an alert only when no result waits.

    Attributes:
        dropped: How many records were dropped since opening, by reason: ``outbox_full_result``,
            ``outbox_full_alert``, ``outbox_unwritable``, ``outbox_corrupt``, ``duplicate``.
        last_id: Highest id given so far.

    Raises:
        OutboxError: The file cannot be opened, or a newer version wrote it. A corrupted file raises nothing: it
            is renamed to ``*.corrupt-<ms>``, and an empty one takes its place.
    """

    def __init__(self, path: Path, max_records: int = 100_000) -> None:
        self.dropped: Counter[str] = Counter()
        self._path = path
        self._max_records = max_records
        self._lock = threading.Lock()
        self._unwritable = False
        self._depth = 0
        self.last_id = 0
        self._open()
        with self._lock:
            self._guarded(self._drop_excess)

    def __enter__(self) -> Self:
        """Itself, closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Store a record; committed when this returns.

        A result survives the end of the process at once, and a power cut from the next checkpoint on; an alert
        survives both at once.

        Args:
            kind: What may be dropped first when the outbox is full.
            record_id: A record that already waits under this identity is left as it is.
            topic: Where it will be published.
            payload: Flat JSON object.
            created_at_ms: When it was made.

        Returns:
            False when it was not stored; then it is counted in ``dropped``.
        """
        with self._lock:
            stored = self._guarded(
                lambda: self._insert(Waiting(self.last_id + 1, record_id, kind, topic, payload, created_at_ms))
            )
            if not stored:
                self.dropped["outbox_unwritable" if stored is None else "duplicate"] += 1
                return False
            if self._unwritable:
                self._unwritable = False
                log.info("outbox %s can be written again", self._path)
            if self._depth > self._max_records:
                self._guarded(self._drop_excess)
            return True

    def waiting(self, after: int, limit: int) -> list[Waiting]:
        """Up to ``limit`` records with an id above ``after``, oldest first; none when the disk does not answer."""
        with self._lock:
            return self._guarded(lambda: self._select(after, limit)) or []

    def forget(self, ids: Sequence[int]) -> int:
        """Remove records that the broker has.

        Returns:
            How many were removed: fewer than given when some had been dropped meanwhile, 0 when the disk fails.
        """
        with self._lock:
            return self._guarded(lambda: self._delete(ids)) or 0

    def depth(self) -> int:
        """How many records wait."""
        return self._depth

    def checkpoint(self) -> None:
        """Move the log into the database, flushing both to disk; call it every few seconds, not from the loop."""
        checkpoint(self._path)

    def close(self) -> None:
        """Close the file; what waits stays in it."""
        with self._lock:
            self._database.close()

    def _open(self) -> None:
        self._database = open_or_replace(self._path)
        self._depth, last_id = self._database.execute("SELECT count(*), coalesce(max(id), 0) FROM record").fetchone()
        self.last_id = max(self.last_id, last_id)
        self._no_result_up_to = 0

    def _insert(self, record: Waiting) -> bool:
        if record.kind == "alert":
            with flushed_on_commit(self._database):
                cursor = self._database.execute(_INSERT, record)
        else:
            cursor = self._database.execute(_INSERT, record)
        if cursor.rowcount != 1:
            return False
        self.last_id = record.id
        self._depth += 1
        return True

    def _select(self, after: int, limit: int) -> list[Waiting]:
        rows = self._database.execute("SELECT * FROM record WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [Waiting._make(row) for row in rows]

    def _delete(self, ids: Sequence[int]) -> int:
        with self._database:  # commits, or rolls back
            self._database.execute("BEGIN IMMEDIATE")
            removed = self._database.executemany("DELETE FROM record WHERE id = ?", [(id_,) for id_ in ids]).rowcount
        self._depth -= removed
        return removed

    def _drop_excess(self) -> None:
        while self._depth > self._max_records:
            kind, oldest_id = self._first_to_drop()
            self._database.execute("DELETE FROM record WHERE id = ?", (oldest_id,))
            self._depth -= 1
            self.dropped[f"outbox_full_{kind}"] += 1

    def _first_to_drop(self) -> tuple[Kind, int]:
        # Where the last search ended is remembered: with many alerts in front, each search would begin with them.
        row = self._database.execute(
            "SELECT id FROM record WHERE kind = 'result' AND id > ? ORDER BY id LIMIT 1", (self._no_result_up_to,)
        ).fetchone()
        self._no_result_up_to = row[0] if row else self.last_id
        if row:
            return "result", row[0]
        return "alert", self._database.execute("SELECT min(id) FROM record").fetchone()[0]

    def _guarded(self, work: Callable[[], T], *, may_replace: bool = True) -> T | None:
        """What ``work`` returns; None when the disk fails. A corrupted file is replaced and the work done again."""
        try:
            return work()
        except sqlite3.Error as error:
            if may_replace and is_corruption(error) and self._replace(error):
                return self._guarded(work, may_replace=False)
            if not self._unwritable:
                self._unwritable = True
                log.error("outbox %s fails, records are lost and counted until it works: %s", self._path, error)  # noqa: TRY400 - the message says it all
            return None

    def _replace(self, error: sqlite3.Error) -> bool:
        self._database.close()
        self.dropped["outbox_corrupt"] += self._depth
        self._depth = 0
        try:
            set_aside(self._path, error)
            self._open()
        except (OSError, OutboxError) as failure:
            log.error("no new outbox: %s", failure)  # noqa: TRY400 - the message says it all
            return False
        return True
