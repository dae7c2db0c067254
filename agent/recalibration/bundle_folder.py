"""The folder of the bundles that were made on this device."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from uuid import uuid4

from calibration.atomic_file import flush_folder
from calibration.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{8})T(\d{6})Z-[0-9a-f]{8}")
_FREE_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.02


class BundleFolder:
    """Each bundle is named for when it was accepted and its identity: ``20260131T120000Z-3f2a9c01``.

    The names rise in the order in which bundles were accepted: where the clock is behind, the time is that of the
    newest bundle and a second more.

    Args:
        folder: Created when needed.
        now: The clock.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self._folder = folder
        self._now = now

    def remove_left_overs(self) -> None:
        """Remove the workplace of a recalibration that was killed, when its worker has ended, too."""
        for path in self._folder.glob(".*"):
            log.info("removing %s, left by a recalibration that was interrupted", path)
            _remove_when_free(path)

    @contextmanager
    def workplace(self) -> Iterator[tuple[Path, int]]:
        """A new folder for a bundle in the making, removed at the end; and its lock.

        Every process that has inherited the descriptor of the lock holds it until it has ended. So the folder is not
        removed while a worker, which may outlive its agent for a moment, still writes into it.

        Raises:
            StorageError: The folder cannot be written.
        """
        path = self._folder / f".{uuid4().hex}"
        try:
            path.mkdir(parents=True)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StorageError(
                what=f"cannot make a folder in {self._folder.absolute()}: {error.strerror}",
                remedy="make room on the disk of state_dir, or fix its permissions",
            ) from error
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield path, lock
        finally:
            os.close(lock)
            _remove_when_free(path)

    def accept(self, path: Path, identity: str) -> Path:
        """Move a bundle out of its workplace; its new path.

        Raises:
            StorageError: The folder cannot be written.
        """
        target = self._folder / f"{self._next_time()}-{identity[:8]}"
        try:
            path.rename(target)
            flush_folder(self._folder)
        except OSError as error:
            raise StorageError(
                what=f"cannot rename the new bundle to {target}: {error.strerror}",
                remedy="fix the permissions of state_dir",
            ) from error
        return target

    def prune(self, keep: int, in_use: Collection[Path]) -> None:
        """Remove all but the newest ``keep``, and never one in use."""
        used = {path.absolute() for path in in_use}
        made = self._made()
        for path in made[: max(0, len(made) - keep)]:
            if path not in used:
                log.info("removing the bundle %s: %d newer ones are kept", path, keep)
                self.remove(path)

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a bundle, its engines and what was measured."""
        shutil.rmtree(path, ignore_errors=True)
        for beside in path.parent.glob(f"{path.name}.*"):
            shutil.rmtree(beside, ignore_errors=True)
            if beside.is_file():
                beside.unlink(missing_ok=True)

    def _made(self) -> list[Path]:
        """The bundles, the oldest first."""
        return sorted(path.absolute() for path in self._folder.glob("*") if _NAME.fullmatch(path.name))

    def _next_time(self) -> str:
        newest = [int("".join(found.groups())) for path in self._made()[-1:] if (found := _NAME.fullmatch(path.name))]
        digits = f"{max(int(f'{self._now():%Y%m%d%H%M%S}'), *(number + 1 for number in newest), 0):014d}"
        return f"{digits[:8]}T{digits[8:]}Z"


def _remove_when_free(path: Path) -> None:
    """Remove a workplace as soon as no process holds its lock; left for the next start if one hangs."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _wait_for(lock)
            shutil.rmtree(path)
        finally:
            os.close(lock)
    except OSError as error:
        log.warning("%s is left until the next start: %s", path, error)


def _wait_for(lock: int) -> None:
    deadline_s = time.monotonic() + _FREE_WITHIN_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(_LOOK_EVERY_S)
