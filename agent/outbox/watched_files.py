"""Notices that other programs removed, replaced, cut or wrote the files of the outbox, which SQLite does not notice."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from agent.outbox.database_file import LOG_BYTES_KEPT, check

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIXES = ("", "-wal", "-shm")
_LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class _Stamp(NamedTuple):
    """What changes when the file is written."""

    size: int
    modified_ns: int


class WatchedFiles:
    """The database file, its log and the index of the log, as the open connection has them.

    Args:
        path: The database; it has been read from since it was opened, so that all three files exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identities = self._found()
        self._stamp = self._stamp_now()
        self._log_bytes = 0

    def note_own_writes(self) -> None:
        """The database file was written by ourselves; in WAL mode only checkpoints do that, and `reserve`."""
        self._stamp = self._stamp_now()

    def verify(self) -> None:
        """Check that the files are the ones that were opened, and whole where others wrote them.

        Raises:
            sqlite3.DatabaseError: They are not.
            sqlite3.Error: The file cannot be read.
            OSError: The same.
        """
        if self._found() != self._identities:
            problem = "its files were removed or replaced"
            raise sqlite3.DatabaseError(problem)
        self._verify_log()
        stamp = self._stamp_now()
        if stamp != self._stamp:
            check(self._path)
            self._stamp = stamp

    def _verify_log(self) -> None:
        with self._path.with_name(f"{self._path.name}-wal").open("rb") as log:  # which SQLite does not lock
            size = os.fstat(log.fileno()).st_size
            is_cut = size < min(self._log_bytes, LOG_BYTES_KEPT)
            # What is written after a cut leaves a hole before it.
            if is_cut or (size and (log.read(4) not in _LOG_MAGIC or log.seek(0, os.SEEK_HOLE) < size)):
                problem = "its log was cut or overwritten"
                raise sqlite3.DatabaseError(problem)
        self._log_bytes = size

    def _found(self) -> list[tuple[int, int] | None]:
        return [_identity(self._path.with_name(self._path.name + suffix)) for suffix in _SUFFIXES]

    def _stamp_now(self) -> _Stamp:
        try:
            status = self._path.stat()
        except OSError:
            return _Stamp(0, 0)
        return _Stamp(status.st_size, status.st_mtime_ns)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
