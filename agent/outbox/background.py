"""The outbox for a thread that answers the line, and must not wait for a disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.outbox.outbox import Outbox, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PATIENCE_S = 0.02
_ENDS_WITHIN_S = 0.5


class _Read(NamedTuple):
    """The arguments of `waiting`."""

    after: int
    limit: int


class BackgroundOutbox(Outbox):
    """An outbox whose `waiting`, `forget`, `drop_too_large` and `checkpoint` are done by a thread of its own.

    They return within 20 ms. What takes longer is done meanwhile: the records that were asked for come with the next
    `waiting`, and what was forgotten is counted by the next `forget`. While something is late, nothing is waited for.
    `put` is not among them: it waits for the disk.

    Attributes:
        notify: Called when something that was late is done; from the other thread.
        before_forget: Called before records that the broker has are removed; from the other thread.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401 - those of an outbox
        super().__init__(*arguments, **more)
        self.notify: Callable[[], object] = lambda: None
        self.before_forget: Callable[[], object] = lambda: None
        self._changed = threading.Condition()
        self._asked: _Read | None = None
        self._read: tuple[_Read, list[Waiting]] | None = None
        self._to_forget: list[int] = []
        self._too_large: list[int] = []
        self._removed = 0
        self._is_checkpoint_due = self._is_at_work = self._is_late = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def waiting(self, after: int, limit: int) -> list[Waiting]:
        """As an outbox has it; none as well while the disk is slow."""
        asked = _Read(after, limit)
        with self._changed:
            if self._read is None or self._read[0] != asked:
                self._read, self._asked = None, asked
                self._await(lambda: self._read is not None)
            read, self._read = self._read, None
            return [] if read is None else read[1]

    def forget(self, ids: Sequence[int]) -> int:
        """As an outbox has it; returns how many were removed since the last call."""
        with self._changed:
            self._to_forget += ids
            self._await(lambda: not self._to_forget and not self._is_at_work)
            removed, self._removed = self._removed, 0
            return removed

    def drop_too_large(self, record_id: int) -> None:
        """As an outbox has it, without waiting for it."""
        with self._changed:
            self._too_large.append(record_id)
            self._changed.notify_all()

    def checkpoint(self) -> None:
        """Begin what an outbox does here, without waiting for it."""
        with self._changed:
            self._is_checkpoint_due = True
            self._changed.notify_all()

    def close(self) -> None:
        """Forget what is to be forgotten, and close; a disk that hangs is left to the end of the process."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(_ENDS_WITHIN_S)
        super().close()

    def _await(self, condition: Callable[[], bool]) -> None:
        """Wait for the other thread, unless it is late already."""
        self._changed.notify_all()
        self._is_late = not self._changed.wait_for(condition, 0.0 if self._is_late else _PATIENCE_S)

    @property
    def _has_work(self) -> bool:
        return bool(self._asked or self._to_forget or self._too_large or self._is_checkpoint_due)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_late &= self._has_work
                self._changed.wait_for(lambda: self._has_work or self._is_closed)
                if not self._has_work:
                    return
                self._is_at_work = True
                ids, self._to_forget = self._to_forget, []
                too_large, self._too_large = self._too_large, []
                asked, self._asked = self._asked, None
                is_checkpoint_due, self._is_checkpoint_due = self._is_checkpoint_due, False
            for record_id in too_large:
                super().drop_too_large(record_id)
            if ids:
                self.before_forget()
            removed = super().forget(ids) if ids else 0
            records = super().waiting(*asked) if asked is not None else []
            self._note(removed, asked, records)
            if is_checkpoint_due:
                super().checkpoint()

    def _note(self, removed: int, asked: _Read | None, records: list[Waiting]) -> None:
        with self._changed:
            self._is_at_work = False
            self._removed += removed
            if asked is not None and self._asked in {None, asked}:
                self._asked, self._read = None, (asked, records)
            self._changed.notify_all()
            is_late = self._is_late
        if is_late:  # no call waits for it any more
            self.notify()
