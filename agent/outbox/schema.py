"""The tables of the outbox, and the migration of files from older versions."""

from __future__ import annotations

import itertools
import sqlite3
import zlib
from typing import TYPE_CHECKING

from agent.errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# The outbox assigns ids, not SQLite: none may be used twice while it is open, even when the table is empty meanwhile.
# `record` has no index by kind: each result would write another page of four kilobytes.
_VERSION_1 = (
    """
    CREATE TABLE IF NOT EXISTS record (
        id INTEGER PRIMARY KEY,
        record_id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        topic TEXT NOT NULL,
        payload TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL
    )
    """,
)
# `hour` holds the last id at the end of each hour that the agent has run. `filler` is always empty: its deleted rows
# leave free pages.
_VERSION_2 = (
    "ALTER TABLE record ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
    """
    UPDATE record SET checksum = checksum(
        id, CAST(record_id AS BLOB), CAST(kind AS BLOB), CAST(topic AS BLOB), CAST(payload AS BLOB), created_at_ms
    )
    """,
    "CREATE TABLE hour (number INTEGER PRIMARY KEY, last_id INTEGER NOT NULL)",
    "CREATE TABLE filler (zeros BLOB NOT NULL)",
)
_VERSIONS = (_VERSION_1, _VERSION_2)
# From version 2 on the version is stored twice: damage to one copy must not look like a newer version.
_UNMARKED = 1
_MARK = 0x5357_0000


def checksum(*columns: object) -> int:
    """CRC-32 of a record's columns; SQLite itself would not notice a flipped bit in one of them."""
    return zlib.crc32(b"\0".join(column if isinstance(column, bytes) else str(column).encode() for column in columns))


def is_whole(row: Sequence[object]) -> bool:
    """Whether a row of ``record`` is undamaged."""
    *columns, found = row
    return checksum(*columns) == found


def bring_up_to_date(database: sqlite3.Connection, path: Path) -> None:
    """Create the tables, or migrate them to this version, in one transaction.

    Raises:
        sqlite3.Error: The file is damaged, or the disk fails.
        OutboxError: A newer version wrote the file.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (mark,) = database.execute("PRAGMA application_id").fetchone()
    if mark != (0 if version <= _UNMARKED else _MARK + version):
        damage = "the two copies of its version differ"
        raise sqlite3.DatabaseError(damage)
    if version > len(_VERSIONS):
        raise OutboxError(
            what=f"the outbox {path} has schema {version}, this version of shiftwatch knows {len(_VERSIONS)}",
            remedy="install the newer version again, or move the file away",
        )
    if version < len(_VERSIONS):
        database.create_function("checksum", -1, checksum)
        with database:  # commits, or rolls back
            database.execute("BEGIN IMMEDIATE")
            for statement in itertools.chain(*_VERSIONS[version:]):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(_VERSIONS)}")
            database.execute(f"PRAGMA application_id = {_MARK + len(_VERSIONS)}")
