"""The index: one row per image, so that counting, finding and removing images need no search through the folders.

It contains nothing that the files do not. An index that is damaged, or of another version, is rebuilt from them.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.archive.entry import ArchivedImage, Mark
from agent.archive.files import FILE_MODE
from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

INDEX_NAME = "index.sqlite"
_SUFFIXES = ("", "-wal", "-shm")
_VERSION = 0x5357_4101
_PAGE_BYTES = 4096
_LOG_PAGES = (8, 256)
_LOG_SHARE = 32
# `id` rises in the order in which images were taken, whatever the clock says.
_SCHEMA = """
CREATE TABLE picture (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    result_id TEXT NOT NULL,
    part_id TEXT,
    seq INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    evaluation INTEGER NOT NULL,
    code INTEGER NOT NULL,
    score REAL,
    threshold REAL NOT NULL,
    bytes INTEGER NOT NULL,
    label TEXT,
    marked_by TEXT,
    marked_at_ms INTEGER,
    zone TEXT NOT NULL DEFAULT ''
);
CREATE INDEX by_class ON picture (evaluation, id);
CREATE INDEX by_time ON picture (created_at_ms);
"""
# Which version 0.1.0 has not and does not mind. Without them questions take longer, and that is all.
_LATER_INDEXES = """
CREATE INDEX IF NOT EXISTS by_result ON picture (result_id);
CREATE INDEX IF NOT EXISTS by_zone ON picture (zone) WHERE zone != '';
"""
_INSERT = """
INSERT INTO picture (path, result_id, part_id, seq, created_at_ms, evaluation, code, zone, score, threshold, bytes,
    label, marked_by, marked_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_OLDEST = "SELECT path, bytes FROM picture WHERE evaluation = ? ORDER BY id LIMIT ?"
_FROM_TO = "SELECT path FROM picture WHERE created_at_ms BETWEEN ? AND ? ORDER BY created_at_ms LIMIT ?"
_ROW = "SELECT id, bytes, label, marked_by, marked_at_ms FROM picture WHERE path = ?"
_OF_DAY = "SELECT path FROM picture WHERE path > ? AND path < ?"
_ADD_ZONE = "ALTER TABLE picture ADD COLUMN zone TEXT NOT NULL DEFAULT ''"  # which version 0.1.0 has not
SET_LABEL = "UPDATE picture SET label = ?, marked_by = ?, marked_at_ms = ? WHERE path = ?"

_log = logging.getLogger(__name__)


class Row(NamedTuple):
    """The part of a row that must fit the files."""

    id: int
    bytes: int
    mark: Mark | None


class Index:
    """The index, open for writing by one thread; others may read the file meanwhile.

    Args:
        path: The file; its folder must exist.
        max_bytes: Size of the whole archive, of which the log of the index may be a small part.

    Attributes:
        used_bytes: Space that images take, by class.

    Raises:
        sqlite3.Error: It can neither be opened nor rebuilt.
        OSError: See above.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._log_pages = min(max(_LOG_PAGES[0], max_bytes // _PAGE_BYTES // _LOG_SHARE), _LOG_PAGES[1])
        try:
            self._database = self._opened()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            _log.warning("the archive's index %s is not usable (%s): it is rebuilt from the files", path, error)
            self.discard()
            self._database = self._opened()
        rows = self._database.execute("SELECT evaluation, sum(bytes) FROM picture GROUP BY evaluation")
        self.used_bytes = Counter({Evaluation(evaluation): size_bytes for evaluation, size_bytes in rows})

    @property
    def is_complete(self) -> bool:
        """Whether every image on the disk has been entered at least once."""
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        return bool(version)

    @property
    def own_bytes(self) -> int:
        """Space that the index itself takes."""
        others = (self._path.with_name(self._path.name + suffix) for suffix in _SUFFIXES[1:])
        return self._pages("page_count") + sum(file.stat().st_size for file in others if file.exists())

    @property
    def free_bytes(self) -> int:
        """The unused part of `own_bytes`."""
        return self._pages("freelist_count")

    @property
    def last_id(self) -> int:
        """Id of the newest row; 0 without any."""
        (newest,) = self._database.execute("SELECT coalesce(max(id), 0) FROM picture").fetchone()
        return int(newest)

    def note_complete(self) -> None:
        """Note that every image on the disk is entered."""
        self._database.execute("PRAGMA user_version = 1")

    def add(self, image: ArchivedImage) -> None:
        """Enter an image whose files are on the disk; it replaces one with the same path."""
        self.forget([image.path])
        self._database.execute(_INSERT, image)
        self.used_bytes[image.evaluation] += image.bytes

    def forget(self, paths: Iterable[str]) -> None:
        """Remove images whose files are no longer on the disk."""
        removed: Counter[Evaluation] = Counter()
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for path in paths:
                found = self._database.execute("SELECT evaluation, bytes FROM picture WHERE path = ?", (path,))
                for evaluation, size_bytes in found.fetchall():
                    removed[Evaluation(evaluation)] += size_bytes
                self._database.execute("DELETE FROM picture WHERE path = ?", (path,))
        self.used_bytes.subtract(removed)

    def mark(self, path: str, mark: Mark | None) -> None:
        """Set or remove the label of an image."""
        self._database.execute(SET_LABEL, (*(mark or (None, None, None)), path))

    def oldest(self, evaluation: Evaluation, limit: int) -> list[tuple[str, int]]:
        """Path and size of the oldest images of a class."""
        return self._database.execute(_OLDEST, (evaluation, limit)).fetchall()

    def made_between(self, first_ms: int, last_ms: int, limit: int) -> list[str]:
        """Paths of images in a span of time, oldest first."""
        return [path for (path,) in self._database.execute(_FROM_TO, (first_ms, last_ms, limit))]

    def row(self, path: str) -> Row | None:
        """The row of an image; None without one."""
        found = self._database.execute(_ROW, (path,)).fetchone()
        if found is None:
            return None
        id_, size_bytes, *mark = found
        return Row(id_, size_bytes, None if mark[0] is None else Mark(*mark))

    def paths_of(self, day: str) -> list[str]:
        """Paths of the images of a day."""
        return [path for (path,) in self._database.execute(_OF_DAY, (f"{day}/", f"{day}0"))]

    def days(self) -> list[str]:
        """Days that have images."""
        return [day for (day,) in self._database.execute("SELECT DISTINCT substr(path, 1, 10) FROM picture")]

    def shrink(self) -> None:
        """Return unused space to the disk."""
        # As a script, because `execute` would free one page only.
        self._database.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(PASSIVE);")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def discard(self) -> None:
        """Delete the file."""
        for suffix in _SUFFIXES:
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _pages(self, pragma: str) -> int:
        (pages,) = self._database.execute(f"PRAGMA {pragma}").fetchone()
        return int(pages) * _PAGE_BYTES

    def _opened(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, FILE_MODE))  # SQLite would make it readable for everyone
        database = sqlite3.connect(self._path, isolation_level=None)
        try:
            self._prepare(database)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute(f"PRAGMA wal_autocheckpoint = {self._log_pages}")
        database.execute(f"PRAGMA journal_size_limit = {self._log_pages * _PAGE_BYTES}")
        (version,) = database.execute("PRAGMA application_id").fetchone()
        if version == 0 and not _tables(database):
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}; PRAGMA application_id = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version:#x}, not {_VERSION:#x}")  # noqa: EM102, TRY003 - for the log
        elif "zone" not in columns(database):
            database.execute(_ADD_ZONE)
        with suppress(sqlite3.OperationalError):
            database.executescript(_LATER_INDEXES)
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        database.execute(_ROW, ("",))


def is_damage(error: Exception) -> bool:
    """Whether the file itself is damaged."""
    # The class itself, not its subclasses, which mean a full disk or a missing permission. A missing table or column
    # is damage as well, because our statements are right.
    return type(error) is sqlite3.DatabaseError or str(error).startswith(("no such ", "unsupported file format"))


def columns(database: sqlite3.Connection) -> set[str]:
    """Columns of the table; an index of version 0.1.0 has no ``zone``."""
    return {name for _, name, *_ in database.execute("PRAGMA table_info(picture)")}


def _tables(database: sqlite3.Connection) -> Sequence[Any]:
    return database.execute("SELECT name FROM sqlite_master").fetchall()
