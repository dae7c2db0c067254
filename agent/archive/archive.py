"""Keeps images of results on this device's disk, within limits and without ever filling the disk.

A snapshot is the original frame (``.png``), for a defect also a copy with the heat map (``.overlay.jpg``), and its
numbers (``.json``), in one folder per day (UTC). The ``.json`` is written last: where it exists, the images are
complete. An index next to the folders lists them all; it can be rebuilt from the files.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import cv2

from agent.archive.quota import MIB, Limits
from agent.archive.snapshot import Selection
from agent.archive.store import Store
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from agent.archive.snapshot import Snapshot
    from agent.messages.records import Evaluation, ResultCode

_WAITING_AT_MOST = 8
_WAITING_BYTES_AT_MOST = 128 * MIB
_FLUSH_TIMEOUT_S = 1.0
_AGAIN_AFTER_S = 60.0

_log = logging.getLogger(__name__)


class Archive:
    """Writes snapshots on a thread of its own, so that a slow disk never delays the inspection.

    Order of calls: enter, any number of ``wants`` and ``submit``, exit. Disk errors raise nothing; what is not kept is
    counted: snapshots submitted = ``written`` + ``waiting`` + the sum of ``dropped``.

    Args:
        directory: Created when needed. Files in it that are not the archive's are neither counted nor removed.
        max_mib: Size of all snapshots with their index; the oldest are removed first, of the class (OK, NotOK,
            NotDecidable) that uses the most in proportion to its share.
        max_age_days: Older snapshots are removed; 0 keeps them.
        ok_every: One OK result in this many has its image kept; 0 keeps none.
    """

    def __init__(self, directory: Path, max_mib: float, *, max_age_days: int = 0, ok_every: int = 0) -> None:
        self._store = Store(directory, Limits(int(max_mib * MIB), max_age_days))
        self._selection = Selection(ok_every)
        self._waiting: deque[Snapshot] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._submitted = 0
        self._written = 0
        self._dropped: Counter[str] = Counter()
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="archive", daemon=True)

    @property
    def written(self) -> int:
        """Snapshots written since the start."""
        return self._written

    @property
    def dropped(self) -> dict[str, int]:
        """Snapshots not kept, by reason: archive busy, closed, disk full, larger than the archive, write failed."""
        with self._changed:
            return dict(self._dropped)

    @property
    def waiting(self) -> int:
        """Snapshots neither written nor dropped yet; after exit 0, or 1 if the disk hangs."""
        with self._changed:
            return self._submitted - self._written - sum(self._dropped.values())

    @property
    def is_reconciled(self) -> bool:
        """Whether index and files have been compared since the start."""
        return self._store.is_reconciled

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Write waiting snapshots, for a second at most; the rest is dropped as ``closed``."""
        deadline_s = time.monotonic() + _FLUSH_TIMEOUT_S
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._changed:
            self._dropped["closed"] += len(self._waiting)
            self._waiting.clear()
            self._dropped = +self._dropped

    def wants(self, evaluation: Evaluation, code: ResultCode) -> bool:
        """Whether to keep the image of such a result; called once per result, by one thread."""
        return self._selection.wants(evaluation, code)

    def submit(self, snapshot: Snapshot) -> str | None:
        """Hand over a snapshot; never waits.

        Returns:
            Path of the frame below the directory, although writing may still fail; None if it is dropped at once.
        """
        size_bytes = snapshot.image.nbytes
        with self._changed:
            self._submitted += 1
            if self._closed:
                self._dropped["closed"] += 1
                return None
            if self._is_full(size_bytes):
                self._dropped["archive busy"] += 1
                return None
            self._waiting.append(snapshot)
            self._waiting_bytes += size_bytes
            self._changed.notify()
        return snapshot.reference

    def _is_full(self, size_bytes: int) -> bool:
        too_large = self._waiting_bytes + size_bytes > _WAITING_BYTES_AT_MOST
        return len(self._waiting) >= _WAITING_AT_MOST or (too_large and bool(self._waiting))

    def _run(self) -> None:
        tidy_at_s = time.monotonic()
        while not self._is_over():
            if time.monotonic() >= tidy_at_s:  # even if snapshots never stop coming
                tidy_at_s = time.monotonic() + self._tidy()
            snapshot = self._next(tidy_at_s - time.monotonic())
            if snapshot is not None:
                self._note(self._reason_not_kept(snapshot))
        self._store.close()

    def _is_over(self) -> bool:
        with self._changed:
            return self._closed and not self._waiting

    def _next(self, patience_s: float) -> Snapshot | None:
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(max(0.0, patience_s))
            if not self._waiting:
                return None
            snapshot = self._waiting.popleft()
            self._waiting_bytes -= snapshot.image.nbytes
            return snapshot

    def _note(self, reason: str | None) -> None:
        with self._changed:
            if reason is None:
                self._written += 1
            else:
                self._dropped[reason] += 1

    def _reason_not_kept(self, snapshot: Snapshot) -> str | None:
        try:
            reason = self._store.keep(snapshot)
        except (OSError, sqlite3.Error, cv2.error, ShiftwatchError) as error:
            reason = "disk full" if _is_disk_full(error) else "write failed"
            self._report(f"{reason}: {error}")
        else:
            self._report(reason)
        return reason

    def _tidy(self) -> float:
        try:
            return self._store.tidy()
        except (OSError, sqlite3.Error) as error:
            self._report(str(error))
            return _AGAIN_AFTER_S

    def _report(self, trouble: str | None) -> None:
        """Log once when snapshots start to get lost, and once when they are kept again."""
        if trouble is not None and self._trouble is None:
            _log.warning("archive keeps no images for now: %s", trouble)
        elif trouble is None and self._trouble is not None:
            _log.info("archive keeps images again; before: %s", self._trouble)
        self._trouble = trouble


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return "full" in str(error)
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
