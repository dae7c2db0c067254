"""The SQLite file of the outbox: open it, replace it when it is damaged, flush it."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol

from agent.clock import now_ms
from agent.errors import OutboxError
from agent.outbox.schema import bring_up_to_date, is_whole
from calibration.atomic_file import flush_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_BUSY_S = 0.1
"""How long SQLite waits for another program's lock; longer waits are ours, and can be ended."""
PAGE_BYTES = 4096
_LOG_PAGES_AT_MOST = 20_000  # never reached while the broker client makes checkpoints
_SUFFIXES = ("-wal", "-shm", "")
LOG_BYTES_KEPT = 16 * 2**20
# Magic, page size 4096, WAL for writing and reading, and three constants.
_HEADER = b"SQLite format 3\0\x10\x00\x02\x02\x00\x40\x20\x20"


class OpenDatabase(Protocol):
    """A database that is open, and damaged."""

    @property
    def database(self) -> sqlite3.Connection:
        """The connection."""

    @property
    def depth(self) -> int:
        """Number of its records."""

    def close(self) -> None:
        """Close it."""


def open_or_replace(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open the database for several threads; replace it if the file is corrupted.

    A replacement that an earlier process could not finish is finished.

    Returns:
        The database, and how many records were lost; 1 if their number is not known.

    Raises:
        OutboxError: The file cannot be opened, or a newer version wrote it.
    """
    try:
        if not path.exists():
            _rename(_fresh(path), path)
        return _open(path), 0
    except OSError as error:
        raise cannot_open(path, error) from error
    except sqlite3.Error as error:
        if not is_corruption(error) and _has_our_header(path):
            raise cannot_open(path, error) from error
        return replace(path, error)


def replace(path: Path, error: Exception, old: OpenDatabase | None = None) -> tuple[sqlite3.Connection, int]:
    """Replace a damaged or removed database by a new one with the records that can still be read.

    The damaged file and its log are kept as ``*.corrupt-<ms>``.

    Args:
        path: The database.
        error: What is wrong with it.
        old: The database, where it is still open: it may have in memory what the file has lost. It is closed once the
            new one is complete.

    Returns:
        The new database, and how many records were lost; 1 if some may be and their number is not known.

    Raises:
        OutboxError: The new one cannot be created.
    """
    # Killed at any point, it leaves the damaged file, to begin again, or the new one, perhaps not renamed yet.
    fresh = _fresh(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(fresh)
        with closing(_open(fresh)) as database:
            rescued = _rescue(path, old, database)
        count = _count(path)
        if old is not None:
            old.close()  # before the new file has its name, as SQLite removes the log by its name
        kept = _set_aside(path)
        _rename(fresh, path)
        flush_folder(path.parent)
        database = _open(path)
    except (sqlite3.Error, OSError) as failure:
        raise cannot_open(path, failure) from failure
    where = f"kept as {kept.name}; " if kept.exists() else ""
    log.error("outbox %s is replaced (%s): %s%d of its records are rescued", path, error, where, rescued)
    return database, 1 if count is None else max(0, count - rescued)


def cannot_open(path: Path, error: Exception) -> OutboxError:
    """The error to raise for one of SQLite or of the operating system."""
    remedy = "correct the permissions or free space on its disk"
    if is_lock(error):
        remedy = "end the program that has locked it, such as a backup or a database shell"
    return OutboxError(what=f"cannot open the outbox {path}: {error}", remedy=remedy)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, path)
        database.execute(f"PRAGMA busy_timeout = {round(_BUSY_S * 1000)}")
    except (sqlite3.Error, OutboxError):
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.text_factory = _lenient
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA temp_store = MEMORY")
    database.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES_AT_MOST}")
    database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    bring_up_to_date(database, path)
    database.execute("SELECT id, record_id, kind, topic, payload, created_at_ms, checksum FROM record LIMIT 1")
    database.execute("SELECT number, last_id FROM hour LIMIT 1")


def _lenient(text: bytes) -> str:
    """Invalid UTF-8 gets a replacement character, which the checksum then shows as damage."""
    return text.decode(errors="replace")


def _has_our_header(path: Path) -> bool:
    """Whether the header is that of this outbox; some damage to it looks to SQLite like a missing permission."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEADER)) in {_HEADER, b""}
    except OSError:
        return True


@contextmanager
def flushed_on_commit(database: sqlite3.Connection) -> Iterator[None]:
    """Inside, a commit returns when it is on disk; outside, the next checkpoint flushes it."""
    database.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        database.execute("PRAGMA synchronous = NORMAL")


def is_corruption(error: Exception) -> bool:
    """Whether the file itself is damaged."""
    # The class itself, not its subclasses: those stand for a full disk, a missing permission, a wrong statement. The
    # statements here are right, so a missing table or column is damage.
    return type(error) is sqlite3.DatabaseError or str(error).startswith(("no such ", "unsupported file format"))


def is_lock(error: Exception) -> bool:
    """Whether another program has locked the file."""
    return isinstance(error, sqlite3.OperationalError) and "lock" in str(error)


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _set_aside(path: Path) -> Path:
    kept = path.with_name(f"{path.name}.corrupt-{now_ms()}")
    _rename(path, kept)
    return kept


def _rename(path: Path, other: Path) -> None:
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(other.with_name(other.name + suffix))


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _rescue(damaged: Path, old: OpenDatabase | None, database: sqlite3.Connection) -> int:
    """Copy the readable records; returns how many there are."""
    with flushed_on_commit(database), database:  # commits, or rolls back
        database.execute("BEGIN IMMEDIATE")
        insert = "INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)"
        rescued = 0
        if old is not None:
            rescued = database.executemany(insert, _readable_records(lambda: nullcontext(old.database))).rowcount
            if rescued >= old.depth:
                return rescued  # the file may be another one
        return rescued + database.executemany(insert, _readable_records(lambda: _existing(damaged, "ro"))).rowcount


def _readable_records(
    opened: Callable[[], AbstractContextManager[sqlite3.Connection]],
) -> Iterator[tuple[Any, ...]]:
    """The undamaged records, read from both ends: the usual single damaged page is somewhere between."""
    for order in ("ASC", "DESC"):
        try:
            with opened() as database:
                database.text_factory = _lenient
                for row in database.execute(f"SELECT * FROM record ORDER BY id {order}"):  # noqa: S608 - one of two words
                    if is_whole(row):
                        yield row
        except sqlite3.Error:
            continue
        return


def _count(damaged: Path) -> int | None:
    with suppress(sqlite3.Error), _existing(damaged, "ro") as database:
        (count,) = database.execute("SELECT count(*) FROM record").fetchone()
        return int(count)
    return None


def _existing(path: Path, mode: Literal["ro", "rw"]) -> closing[sqlite3.Connection]:
    """The file as it is, with no settings; closed at the end of a ``with``."""
    return closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S))


def check(path: Path) -> None:
    """Read the whole file.

    Raises:
        sqlite3.Error: It is damaged or cannot be read.
    """
    with _existing(path, "rw") as database:
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(" ".join(verdict.split()))


def checkpoint(path: Path) -> bool:
    """Move the log into the database, flushing both to disk, while other threads read and write.

    Returns:
        Whether all of it was moved; then the log starts again from its beginning.

    Raises:
        sqlite3.Error: The disk fails; the log stays.
    """
    # A new connection each time: it costs a fraction of the flushes.
    with _existing(path, "rw") as database:
        is_busy, pages, moved = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not is_busy and pages == moved
