"""The archive on the disk: files and index together, within the limits. For one thread, which may be delayed."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

from agent.archive import files
from agent.archive.entry import encoded, image_of, sibling
from agent.archive.index import INDEX_NAME, Index, is_damage
from agent.archive.quota import furthest_over_share, missing_on_disk
from agent.archive.reconcile import reconcile
from agent.archive.trusted_clock import TrustedClock
from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.archive.entry import ArchivedImage
    from agent.archive.quota import Limits
    from agent.archive.snapshot import Snapshot

_SLACK_BYTES = 64 * 1024  # growth of the index before it is measured again
_AT_A_TIME = 16
_WORTH_SHRINKING_BYTES = 1024 * 1024
_STEP_EVERY_S = 0.02
_TIDY_EVERY_S = 60.0

_log = logging.getLogger(__name__)


class Store:
    """Writes images, removes old ones, and keeps the index in step.

    The index is opened by the first call, and again after it was found damaged.

    Args:
        directory: Created when needed.
        limits: Limits of the archive's own files.
        now_s: Wall clock.
        clock_s: Monotonic clock.

    Attributes:
        is_reconciled: Whether files and index have been compared since the start.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        now_s: Callable[[], float] = time.time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_reconciled = False
        self._directory = directory
        self._limits = limits
        self._clock = TrustedClock(now_s, clock_s)
        self._index: Index | None = None
        self._comparison: Iterator[None] = iter(())

    def keep(self, snapshot: Snapshot) -> str | None:
        """Write one image, after removing others to make space.

        Returns:
            Why it was not kept; None when it is on the disk.

        Raises:
            OSError: The disk refuses.
            sqlite3.Error: The index refuses.
            cv2.error: The image cannot be encoded.
            DatasetError: The region reaches outside it.
        """
        contents = encoded(snapshot)
        image = image_of(snapshot, contents)
        with self._open_index() as index:
            while not index.is_complete:  # until then the used space is not known
                self._compare(index)
            reason = self._make_room(index, image.evaluation, image.bytes)
            if reason is None:
                named = {sibling(image.path, ending): content for ending, content in contents.items()}
                files.write(self._directory, named)
                self._note(index, image)
        return reason

    def tidy(self) -> float:
        """Compare files and index, and remove old images; called when no image waits.

        Returns:
            Seconds until the next call.

        Raises:
            OSError: The disk fails.
            sqlite3.Error: The index fails.
        """
        with self._open_index() as index:
            if not self.is_reconciled:
                self._compare(index)
                return _STEP_EVERY_S if index.is_complete else 0.0
            self._make_room(index, Evaluation.UNDEFINED, 0)
            return _STEP_EVERY_S if self._prune_by_age(index) else _TIDY_EVERY_S

    def close(self) -> None:
        """Close the index."""
        if self._index is not None:
            self._index.close()
            self._index = None

    @contextmanager
    def _open_index(self) -> Iterator[Index]:
        """The index, opened if necessary; a damaged one is rebuilt the next time."""
        if self._index is None:
            files.make_folder(self._directory)
            self._index = Index(self._directory / INDEX_NAME, self._limits.max_bytes)
            self._comparison = reconcile(self._directory, self._index)
            self.is_reconciled = False
        index = self._index
        try:
            yield index
        except sqlite3.Error as error:
            if is_damage(error):
                _log.warning("the archive's index is damaged (%s): it is rebuilt from the files", error)
                self.close()
                index.discard()
            raise

    def _compare(self, index: Index) -> None:
        """Compare files and index by one more step; from the start after a failure."""
        try:
            next(self._comparison)
        except StopIteration:
            self.is_reconciled = True
        except (OSError, sqlite3.Error):
            self._comparison = reconcile(self._directory, index)
            raise

    def _make_room(self, index: Index, evaluation: Evaluation, size_bytes: int) -> str | None:
        """Remove images to make space for one of this class and size; returns why it cannot be kept."""
        while (excess := size_bytes - self._room_left(index)) > 0:
            if index.free_bytes >= _WORTH_SHRINKING_BYTES:
                index.shrink()
            elif not self._prune(index, excess, evaluation, size_bytes):
                return "larger than the archive"
        missing = missing_on_disk(self._directory, size_bytes)
        if missing > index.used_bytes.total():
            return "disk full"  # even without a single image
        while missing > 0:
            if not self._prune(index, missing, evaluation, size_bytes):
                return "disk full"
            missing = missing_on_disk(self._directory, size_bytes)
        return None

    def _room_left(self, index: Index) -> int:
        return self._limits.max_bytes - _SLACK_BYTES - index.own_bytes - index.used_bytes.total()

    def _prune(self, index: Index, excess: int, evaluation: Evaluation, size_bytes: int) -> bool:
        """Remove the oldest images of the class that is furthest over its share; whether there were any."""
        stored = {each: used for each, used in index.used_bytes.items() if used > 0}
        if not stored:
            return False
        if evaluation in stored:
            stored[evaluation] += size_bytes
        oldest = index.oldest(furthest_over_share(stored), _AT_A_TIME)
        freed = [0, *accumulate(room for _, room in oldest)]
        paths = [path for (path, _), before in zip(oldest, freed, strict=False) if before < excess]
        self._remove(index, paths)
        return True

    def _prune_by_age(self, index: Index) -> bool:
        """Remove some images that are too old; whether there may be more."""
        now_ms = self._clock.now_ms()
        too_old = None if now_ms is None else self._limits.too_old_ms(now_ms)
        if too_old is None:
            return False
        paths = index.made_between(*too_old, _AT_A_TIME)
        self._remove(index, paths)
        return len(paths) == _AT_A_TIME

    def _remove(self, index: Index, paths: list[str]) -> None:
        # A process killed in between leaves rows without files: the used space is overestimated, never underestimated.
        files.remove(self._directory, paths)
        index.forget(paths)

    def _note(self, index: Index, image: ArchivedImage) -> None:
        try:
            index.add(image)
        except sqlite3.Error:
            files.remove(self._directory, [image.path])
            raise
