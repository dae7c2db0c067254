"""Counts every result in the statistics of the station, on a thread of its own."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.messages.records import Evaluation
from agent.statistics.tables import OneResult, checkpoint, count, counts_between, insert, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from typing_extensions import Self

    from agent.outbox.outbox import Kind, Waiting

log = logging.getLogger(__name__)

FILE_NAME = "statistics.sqlite"
_HOUR_MS = 3_600_000
_FLUSH_EVERY_S = 1.0
_COUNT_EVERY_S = 10.0
_MOST_PENDING = 10_000
_ENDS_WITHIN_S = 0.5


class History:
    """Counts results; from enter to exit in the background. No method raises because of the disk.

    `put` costs the inspection loop no write: results wait in memory, for a second at most or until `flush`, which is to
    be called before a record is removed from the outbox. So each result is in one of the two files, and a process that
    is killed has lost none. While the file cannot be written or is locked, results stay in memory; of more than 10,000
    the oldest are not counted.

    Args:
        path: The file; its folder must exist. One that is damaged is renamed to ``*.corrupt-<ms>`` and replaced.
        results_kept: Results that are kept one by one.
        recorded: The newest records of the outbox; those that a killed agent had not counted are counted now.

    Attributes:
        not_counted: Results that are in no statistics.
        fault: Why results cannot be counted now; None when they can.
    """

    def __init__(
        self,
        path: Path,
        results_kept: int,
        recorded: Iterable[Waiting] = (),
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.not_counted = 0
        self.fault: str | None = None
        self._path = path
        self._results_kept = results_kept
        self._clock_ms = clock_ms
        self._lock = threading.Lock()  # for `put` and `this_hour`, which must not wait for the disk
        self._new: deque[tuple[str, str, int]] = deque()
        self._hour, self._of_hour = clock_ms() // _HOUR_MS, Counter[int]()
        self._writing = threading.Lock()
        self._pending: list[OneResult] = []
        self._database: sqlite3.Connection | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="statistics", daemon=True)
        for each in recorded:
            self.put(each.kind, each.record_id, each.topic, each.payload, each.created_at_ms)
        self.flush()
        with self._writing:
            self._guarded(self._read_hour)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Count what waits, and close; a disk that hangs is left to the end of the process."""
        self._ending.set()
        self._thread.join(_ENDS_WITHIN_S)
        if self._writing.acquire(timeout=_ENDS_WITHIN_S):
            try:
                self._close()
            finally:
                self._writing.release()

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:  # noqa: ARG002 - a Store
        """Take a result; see `agent.inspection.recorder.Store`."""
        if kind == "result":
            with self._lock:
                if len(self._new) >= _MOST_PENDING:
                    self._new.popleft()
                    self.not_counted += 1
                self._new.append((record_id, payload, created_at_ms))
        return True

    def flush(self) -> bool:
        """Write what was put into the file, each result once; returns whether it is there."""
        with self._writing:
            with self._lock:
                new, self._new = self._new, deque()
                results = [_result_of(record_id, json.loads(payload), at_ms) for record_id, payload, at_ms in new]
                for result in results:
                    self._note_hour(result)
            self._pending += results
            excess = max(0, len(self._pending) - _MOST_PENDING)
            del self._pending[:excess]
            self.not_counted += excess
            return not self._pending or self._guarded(self._insert)

    @property
    def this_hour(self) -> dict[str, int]:
        """Results of this hour (UTC) by verdict, named as in ``health``; up to a second old."""
        with self._lock:
            self._turn_hour(self._clock_ms() // _HOUR_MS)
            counts = self._of_hour
        names = {"ok": Evaluation.OK, "notOk": Evaluation.NOT_OK, "notDecidable": Evaluation.NOT_DECIDABLE}
        return {name: counts[evaluation] for name, evaluation in names.items()}

    def _note_hour(self, result: OneResult) -> None:
        hour = result.created_at_ms // _HOUR_MS
        self._turn_hour(max(hour, self._clock_ms() // _HOUR_MS))
        if hour == self._hour:
            self._of_hour[result.evaluation] += 1

    def _turn_hour(self, hour: int) -> None:
        if hour != self._hour:
            self._hour, self._of_hour = hour, Counter()

    def _insert(self, database: sqlite3.Connection) -> None:
        insert(database, self._pending)
        self._pending.clear()

    def _read_hour(self, database: sqlite3.Connection) -> None:
        start_ms, of_hour = self._hour * _HOUR_MS, Counter[int]()
        for row in counts_between(database, start_ms, start_ms + _HOUR_MS - 1):
            of_hour[row.evaluation] += row.results
        self._of_hour = of_hour

    def _run(self) -> None:
        count_at_s = time.monotonic() + _COUNT_EVERY_S
        while not self._ending.wait(_FLUSH_EVERY_S):
            is_well = self.flush()
            if is_well and time.monotonic() >= count_at_s:
                count_at_s = time.monotonic() + _COUNT_EVERY_S
                self._count()
        self.flush()

    def _count(self) -> None:
        with self._writing:
            is_well = self._guarded(lambda database: count(database, self._results_kept))
        if is_well:
            try:
                checkpoint(self._path)
            except (sqlite3.Error, OSError):
                log.debug("the statistics are written to the disk later", exc_info=True)

    def _guarded(self, work: Callable[[sqlite3.Connection], object], *, may_replace: bool = True) -> bool:
        """Whether the work was done; a damaged file is replaced, and the work done with the new one."""
        try:
            if self._database is None:
                self._database = opened(self._path)
            work(self._database)
        except (sqlite3.Error, OSError) as error:
            if may_replace and self._replaced(error):
                return self._guarded(work, may_replace=False)
            self._note_fault(error)
            return False
        if self.fault is not None:
            self.fault = None
            log.info("results are counted again")
        return True

    def _replaced(self, error: Exception) -> bool:
        """Whether the file was damaged and is set aside."""
        is_damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if not is_damaged:
            return False
        self._close()
        kept = self._path.with_name(f"{self._path.name}.corrupt-{self._clock_ms()}")
        try:
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._path.rename(kept)
        except OSError:
            return False
        log.error("the statistics begin again: %s (%s); it is kept as %s", self._path, error, kept.name)
        return True

    def _note_fault(self, error: Exception) -> None:
        self._close()
        if self.fault is None:
            log.warning("results are not counted until %s can be written: %s", self._path, error)
        self.fault = str(error)

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()


def _result_of(record_id: str, payload: dict[str, object], created_at_ms: int) -> OneResult:
    def number(name: str) -> float | None:
        value = payload.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    def text(name: str) -> str | None:
        value = payload.get(name)
        # A name may contain what UTF-8 has not.
        return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else None

    seq, code = number("seq"), number("resultCode")
    return OneResult(
        record_id,
        created_at_ms,
        None if seq is None else int(seq),
        text("partId"),
        int(number("resultEvaluation") or 0),
        int(code or 0),
        text("zone"),
        number("score"),
        number("threshold"),
    )
