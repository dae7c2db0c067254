"""Records on disk, from the moment they are made until the broker has them.

One SQLite file in WAL mode. One thread puts, another reads and forgets. Both share one connection under a lock, which
is faster than two connections that wait for each other inside SQLite. The slow part, copying the log into the database
and flushing it to disk, is done by `checkpoint`, which does not hold the lock. All of it may wait for the disk:
`RecordWriter` and `BackgroundOutbox` keep that from the loop and from the broker client.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from agent.errors import OutboxError
from agent.outbox.database_file import PAGE_BYTES, checkpoint, is_corruption, is_lock, open_or_replace, replace
from agent.outbox.records_table import Kind, Records, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["Kind", "Outbox", "Waiting"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_HOUR_S = 3600
_BATCH = 50  # dropped at a time, while records wait: a millisecond
_SPARE_PAGES = 128
_LOCK_RETRY_S = 0.05
_CLOSED_WITHIN_S = 0.5


class Outbox:
    """Records that wait for the broker, oldest first; safe to use from two threads.

    Every record that was put is either waiting, forgotten, or counted in ``dropped``. Once the outbox is open, no
    method raises because of the disk: a record that cannot be stored is counted.

    Args:
        path: Database file; its directory must exist. It reserves a mebibyte for a full disk.
        max_records: When more would wait, the oldest result is dropped, and an alert only when no result waits.
        max_mib: The same for their room in the file; enforced by `checkpoint`.
        max_age_days: `checkpoint` drops results that have waited longer. Time counts while an outbox is open on the
            file, by the monotonic clock: setting the wall clock does not make records old.
        clock_s: Monotonic clock, in seconds.

    Attributes:
        dropped: How many records were dropped since opening, by reason: ``outbox_full_result``,
            ``outbox_full_alert``, ``outbox_old_result``, ``outbox_unwritable``, ``outbox_corrupt``,
            ``outbox_too_large``, ``duplicate``.
        fault: Why records cannot be written now; None when they can. During a fault results are dropped, and alerts
            use the free room in the file and that of the oldest results. A lock of another program is no fault:
            `put` waits for its end.
        delivered: How many records were forgotten because the broker has them.
        faults: How often a fault began, or the file had to be replaced.
        locked_by: Why `put` waits now; None when it does not.

    Raises:
        OutboxError: The file cannot be opened, or a newer version wrote it. A corrupted file is renamed to
            ``*.corrupt-<ms>`` instead, and replaced by a new one with its readable records.
    """

    def __init__(
        self,
        path: Path,
        max_records: int = 100_000,
        max_mib: int = 256,
        max_age_days: int = 30,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.fault: str | None = None
        self.faults = self.delivered = 0
        self.locked_by: str | None = None
        self._met_lock: str | None = None
        self._closing = threading.Event()
        self._path = path
        self._max_records = max_records
        self._max_pages = max_mib * 2**20 // PAGE_BYTES
        self._max_age_hours = max_age_days * 24
        self._clock_s = clock_s
        self._hour_began_s = clock_s()
        self._acknowledged: list[int] = []
        self._log_began_at_id = 0
        self._lock = threading.RLock()
        database, lost = open_or_replace(path)
        self._records = Records(path, database, self.dropped)
        self._count_lost(lost)
        self._locked(self._drop_excess)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Store and commit a record.

        A result survives the end of the process at once, and a power cut from the next checkpoint on; an alert
        survives both at once.

        Args:
            kind: Results are dropped before alerts.
            record_id: Identity; a record that already waits under it stays as it is.
            topic: Topic to publish on.
            payload: JSON object.
            created_at_ms: When it was made, ms since 1970.

        Returns:
            False when it was not stored, but counted in ``dropped``. While another program locks the file, it does not
            return.
        """
        while True:
            with self._lock:
                self._met_lock = None
                stored = self._store(Waiting(self.last_id + 1, record_id, kind, topic, payload, created_at_ms))
                self.locked_by = self._met_lock
                if stored:
                    self._guarded(self._drop_excess)
                    return True
                if self.locked_by is None or self._closing.is_set():
                    self.dropped["outbox_unwritable" if stored is None else "duplicate"] += 1
                    return False
            self._closing.wait(_LOCK_RETRY_S)  # others may use the outbox now

    def waiting(self, after: int, limit: int) -> list[Waiting]:
        """Up to ``limit`` records with an id above ``after``, oldest first; none when the disk fails."""
        return self._locked(lambda: self._records.select(after, limit)) or []

    def forget(self, ids: Sequence[int]) -> int:
        """Remove records that the broker has; if the disk fails, they are removed with the next ones.

        Returns:
            How many were removed: fewer than given when some had been dropped meanwhile, 0 when the disk fails.
        """
        self._acknowledged += ids
        return self._locked(self._forget_acknowledged) or 0

    def drop_too_large(self, record_id: int) -> None:
        """Drop a record that no broker connection can carry, by its id."""
        self._locked(lambda: self._records.drop([record_id], "outbox_too_large"))

    @property
    def last_id(self) -> int:
        """Highest id so far."""
        return self._records.last_id

    def depth(self) -> int:
        """Number of waiting records."""
        return self._records.depth

    def checkpoint(self) -> None:
        """Flush to disk, enforce the limits, recover from a fault; call it every few seconds, not from the loop.

        Files that others removed, replaced or damaged are replaced by new ones with the records that can be read.
        """
        if not self._locked(self._verify_files):
            return  # nothing is written that may be damaged
        can_be_written = self._locked(self._check_writable)
        if self._flush() and can_be_written and self.fault is not None:
            self.fault = None
            log.info("outbox %s can be written again", self._path)
        self._locked(self._note_hours)
        while self._locked(self._drop_some):
            pass
        self._locked(self._shrink)
        self._locked(self._begin_log)

    def close(self) -> None:
        """Close the file; waiting records stay in it. A disk that hangs is left to the end of the process."""
        self._closing.set()
        if self._lock.acquire(timeout=_CLOSED_WITHIN_S):
            try:
                self._records.close()
            finally:
                self._lock.release()

    def _store(self, record: Waiting) -> bool | None:
        """Whether the record is new; None when it cannot be written."""
        if self.fault is not None and record.kind == "result":
            return None
        stored = self._guarded(lambda: self._records.insert(record))
        if stored is None and self._met_lock is None and record.kind == "alert" and self._flush():
            # The log starts again, where it has room.
            stored = self._guarded(lambda: self._records.insert(record))
        return stored

    def _forget_acknowledged(self) -> int:
        removed = self._records.delete(self._acknowledged)
        self.delivered += removed
        self._acknowledged = []
        return removed

    def _drop_excess(self) -> None:
        if self._records.depth > self._max_records:
            self._records.drop_first(self._records.depth - self._max_records)

    def _drop_some(self) -> bool:
        """Drop a few records that are old or take too much room; returns whether there may be more."""
        if self._records.drop_old_results(_BATCH):
            return True
        pages = self._records.pages()
        if pages.used > self._max_pages:
            self._records.drop_first(_BATCH)
            return True
        # Where the file cannot grow, alerts use the room of results.
        return self.fault is not None and pages.free < _SPARE_PAGES and self._records.drop_first_results(_BATCH) > 0

    def _note_hours(self) -> None:
        hours = int((self._clock_s() - self._hour_began_s) // _HOUR_S)
        if hours:
            self._records.pass_hours(hours, self._max_age_hours)
            self._hour_began_s += hours * _HOUR_S

    def _verify_files(self) -> bool:
        if self._records.is_open:
            self._records.files.verify()
        return True

    def _check_writable(self) -> bool:
        """Check that the file can be written, and reserve room in it for a full disk."""
        if not self._records.is_open:
            self._use(open_or_replace(self._path)[0])
        if self.fault is not None:
            self._records.fill(1)
        self._records.reserve()
        return True

    def _shrink(self) -> None:
        self._records.shrink()

    def _begin_log(self) -> None:
        """Write something: the first write after a flush waits for the disk, and the loop shall not."""
        if self._log_began_at_id < self.last_id:
            self._log_began_at_id = self.last_id
            self._records.fill(1)

    def _flush(self) -> bool:
        """Move the log into the database; returns whether the log is empty now."""
        try:
            return checkpoint(self._path)
        except sqlite3.Error as error:
            with self._lock:
                if not (is_corruption(error) and self._replace(error)):
                    self._note_fault(error)
            return False
        finally:
            self._records.files.note_own_writes()

    def _locked(self, work: Callable[[], T]) -> T | None:
        with self._lock:
            return self._guarded(work)

    def _guarded(self, work: Callable[[], T], *, may_replace: bool = True) -> T | None:
        """What ``work`` returns; None when the disk fails. A corrupted file is replaced and the work repeated."""
        try:
            return work()
        except (sqlite3.Error, OSError, OutboxError) as error:
            if is_lock(error):
                self._met_lock = str(error)
                return None
            if may_replace and is_corruption(error) and self._replace(error):
                return self._guarded(work, may_replace=False)
            self._note_fault(error)
            return None

    def _note_fault(self, error: Exception) -> None:
        if is_lock(error):
            return
        if self.fault is None:
            self.faults += 1
            log.error("outbox %s fails, records are lost and counted until it works: %s", self._path, error)
        self.fault = str(error)

    def _replace(self, error: Exception) -> bool:
        try:
            self._use(replace(self._path, error, self._records if self._records.is_open else None)[0])
        except OutboxError as failure:
            if self.fault is None:
                log.error("no new outbox: %s", failure)  # noqa: TRY400 - the message is complete
            return False
        self.faults += self.fault is None
        return True

    def _use(self, database: sqlite3.Connection) -> None:
        before = self._records
        self._records = Records(self._path, database, self.dropped, before.last_id)
        self._count_lost(before.depth - self._records.depth)

    def _count_lost(self, count: int) -> None:
        if count > 0:
            self.dropped["outbox_corrupt"] += count
