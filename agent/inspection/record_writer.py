"""Stores records on a thread of its own, in order, so that the verdict to the line never waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.outbox.outbox import Kind

log = logging.getLogger(__name__)

_MOST_WAITING = 4096
"""Some megabytes; 80 seconds of a fast camera."""
_STUCK_AFTER_S = 5.0
_ENDS_WITHIN_S = 1.0
LOST = "outbox_unwritable"


@dataclass(slots=True, eq=False)
class _Job:
    kind: Kind
    store: Callable[[], object]
    since_s: float
    is_awaited: bool
    done: threading.Event = field(default_factory=threading.Event)


def at_once(_kind: Kind, store: Callable[[], object], _patience_s: float = 0.0) -> None:
    """Instead of `RecordWriter.write`, where a disk may be waited for."""
    store()


class RecordWriter:
    """Carries out what stores records, from enter to exit, one after the other.

    As long as the disk is quick, `write` returns when the record is stored: then a process that is killed loses
    nothing that the line was answered. A disk that is slow, or a file that another program has locked, is waited for
    once, and not again until it has caught up; meanwhile records wait in memory. Of more than 4096 the oldest results
    are dropped.

    Args:
        why_stuck: What may be the cause, if it is known.
        clock_s: Monotonic clock.

    Attributes:
        dropped: Records that were lost in memory, as ``outbox_unwritable``.
        faults: How often no record could be stored for five seconds.
        notify: Called when a record is stored that no call waits for; from the other thread.
    """

    def __init__(self, why_stuck: Callable[[], str | None], clock_s: Callable[[], float] = time.monotonic) -> None:
        self.dropped: Counter[str] = Counter()
        self.faults = 0
        self._why_stuck = why_stuck
        self.notify: Callable[[], object] = lambda: None
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._is_late = self._is_stuck = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether records are stored; the watchdog must starve when they are not."""
        return self._thread.is_alive() or self._is_closed

    @property
    def fault(self) -> str | None:
        """Why no record could be stored for five seconds; None while they can."""
        with self._changed:
            oldest = self._jobs[0] if self._jobs else None
        if oldest is None or self._clock_s() - oldest.since_s < _STUCK_AFTER_S:
            return None
        return self._why_stuck() or "the disk does not answer"

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Store what waits, for a second at most; the rest is lost, and counted."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(_ENDS_WITHIN_S)
        with self._changed:
            # What waits for a lock is counted by the outbox when it is closed.
            lost = len(self._jobs) - (1 if self._jobs and self._why_stuck() is not None else 0)
            self._jobs.clear()
            self.dropped[LOST] += lost
        if lost:
            log.error("%d records are lost: they could not be stored before the end", lost)

    def write(self, kind: Kind, store: Callable[[], object], patience_s: float = 0.0) -> None:
        """Store a record, and wait for it for ``patience_s`` at most; from any thread."""
        job = _Job(kind, store, self._clock_s(), is_awaited=patience_s > 0)
        with self._changed:
            if self._is_closed:
                self.dropped[LOST] += 1
                return
            if len(self._jobs) >= _MOST_WAITING:
                self._drop_one()
            self._jobs.append(job)
            self._changed.notify_all()
            job.is_awaited &= not self._is_late
        if job.is_awaited and not job.done.wait(patience_s):
            job.is_awaited, self._is_late = False, True
        self._note_stuck()

    def _note_stuck(self) -> None:
        """Log once that records wait."""
        if not self._is_stuck and (fault := self.fault) is not None:
            self._is_stuck = True
            self.faults += 1
            log.error("no record can be stored (%s): up to %d wait in memory, verdicts go on", fault, _MOST_WAITING)

    def _drop_one(self) -> None:
        """Drop the oldest result, or the oldest alert without one; not the first job, which is being done."""
        index = next((index for index, job in enumerate(self._jobs) if index and job.kind == "result"), 1)
        del self._jobs[index]
        self.dropped[LOST] += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._note_caught_up()
                    self._changed.wait_for(lambda: self._jobs or self._is_closed)
                if not self._jobs:
                    return
                job = self._jobs[0]
            job.store()
            job.done.set()
            with self._changed:
                if self._jobs:  # not given up at the end
                    self._jobs.popleft()
            if not job.is_awaited:
                self.notify()

    def _note_caught_up(self) -> None:
        self._is_late = False
        if self._is_stuck:
            self._is_stuck = False
            log.info("records are stored again")
