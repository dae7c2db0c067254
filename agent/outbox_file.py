"""The SQLite file under the outbox: open it, replace it when it is damaged, flush it."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from agent.errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
# Ids are given by the outbox, not by SQLite: none may be used twice while it is open, even when the table runs empty.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY,
    record_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
)
"""
# Without the publisher's checkpoints the log would grow for ever; with them this size is never reached.
_LOG_PAGES_AT_MOST = 20_000


def open_or_replace(path: Path) -> sqlite3.Connection:
    """The database, ready for use from several threads; an empty one if the file is corrupted.

    Raises:
        OutboxError: The file cannot be opened, or a newer version wrote it.
    """
    try:
        return _open(path)
    except sqlite3.Error as error:
        if not is_corruption(error):
            raise OutboxError(
                what=f"cannot open the outbox {path}: {error}",
                remedy="mend the permissions or make room on its disk",
            ) from error
        set_aside(path, error)
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, path)
    except (sqlite3.Error, OutboxError):
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > _SCHEMA_VERSION:
        raise OutboxError(
            what=f"the outbox {path} has schema {version}, this version of shiftwatch knows {_SCHEMA_VERSION}",
            remedy="install the newer version again, or move the file away",
        )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES_AT_MOST}")
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    database.execute(_SCHEMA)
    database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")


@contextmanager
def flushed_on_commit(database: sqlite3.Connection) -> Iterator[None]:
    """Inside, a commit returns when the disk has it; outside, the checkpoint sees to that."""
    database.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        database.execute("PRAGMA synchronous = NORMAL")


def is_corruption(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged."""
    # The class itself, not its children: those stand for a full disk, a missing permission, a wrong statement.
    return type(error) is sqlite3.DatabaseError


def set_aside(path: Path, error: sqlite3.Error) -> None:
    """Rename the closed file and its log to ``*.corrupt-<ms>``, where a person can look at them."""
    kept = path.with_name(f"{path.name}.corrupt-{time.time_ns() // 1_000_000}")
    path.rename(kept)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(kept.with_name(kept.name + suffix))
    log.error("outbox %s is corrupted (%s): kept as %s, going on with an empty one", path, error, kept.name)


def checkpoint(path: Path) -> None:
    """Move the log into the database, flushing both to disk, while others go on reading and writing."""
    # A connection of its own each time: it costs a fraction of the flushes, and there is none to keep in step.
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        log.debug("checkpoint of %s failed, the next one will do it: %s", path, error)
