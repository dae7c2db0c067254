"""Takes every result into the statistics of the station, as soon as it is recorded."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import Counter
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.messages.records import Evaluation
from agent.statistics.tables import OneResult, checkpoint, count, counts_between, insert, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from agent.outbox.outbox import Kind

log = logging.getLogger(__name__)

FILE_NAME = "statistics.sqlite"
_HOUR_MS = 3_600_000
_EVERY_S = 10.0
_MOST_PENDING = 10_000
_ENDS_WITHIN_S = 0.5


class History:
    """Counts results; from enter to exit also in the background. No method raises because of the disk.

    A result is in the file when `put` returns, so that a process that is killed has counted what it recorded. While the
    file cannot be written or is locked, results wait in memory; of more than 10,000 the oldest are not counted.

    Args:
        path: The file; its folder must exist. One that is damaged is renamed to ``*.corrupt-<ms>`` and replaced.
        results_kept: Results that are kept one by one.

    Attributes:
        not_counted: Results that are in no statistics.
        fault: Why results cannot be counted now; None when they can.
    """

    def __init__(self, path: Path, results_kept: int, clock_ms: Callable[[], int] = now_ms) -> None:
        self.not_counted = 0
        self.fault: str | None = None
        self._path = path
        self._results_kept = results_kept
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._pending: list[OneResult] = []
        self._database: sqlite3.Connection | None = None
        self._hour, self._of_hour = clock_ms() // _HOUR_MS, Counter[int]()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="statistics", daemon=True)
        with self._lock:
            self._guarded(self._read_hour)

    def __enter__(self) -> Self:
        """Start to add up."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close; a disk that hangs is left to the end of the process."""
        self._ending.set()
        self._thread.join(_ENDS_WITHIN_S)
        if self._lock.acquire(timeout=_ENDS_WITHIN_S):
            try:
                self._close()
            finally:
                self._lock.release()

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:  # noqa: ARG002 - a Store
        """Count a result, once; see `agent.inspection.recorder.Store`."""
        if kind != "result":
            return True
        result = _result_of(record_id, json.loads(payload), created_at_ms)
        with self._lock:
            self._note_hour(result)
            self._pending.append(result)
            if len(self._pending) > _MOST_PENDING:
                del self._pending[0]
                self.not_counted += 1
            return self._guarded(self._insert)

    @property
    def this_hour(self) -> dict[str, int]:
        """Results of this hour (UTC) by verdict, named as in ``health``; reads no file."""
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
        start_ms = self._hour * _HOUR_MS
        for row in counts_between(database, start_ms, start_ms + _HOUR_MS - 1):
            self._of_hour[row.evaluation] += row.results

    def _run(self) -> None:
        while not self._ending.wait(_EVERY_S):
            with self._lock:
                is_well = self._guarded(self._insert) and self._guarded(lambda each: count(each, self._results_kept))
            if is_well:
                try:
                    checkpoint(self._path)
                except (sqlite3.Error, OSError):
                    log.debug("the statistics are flushed later", exc_info=True)

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
