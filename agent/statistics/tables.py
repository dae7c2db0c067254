"""The SQLite file of the statistics: results of the last time one by one, and counts of all of them.

Counts belong to quarters of an hour in UTC, so that they add up to hours, shifts and days in every time zone.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import StatisticsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

QUARTER_MS = 15 * 60 * 1000
_VERSION = 0x5357_5301
_MOST_COUNTS = 300_000  # two years with four reasons in each quarter of an hour; 14 MiB
_REMOVED_AT_ONCE = 5000  # every ten seconds, more than any camera gives

# `id` rises in the order of recording, whatever the clock says.
_SCHEMA = """
CREATE TABLE result (
    id INTEGER PRIMARY KEY,
    result_id TEXT NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL,
    seq INTEGER,
    part_id TEXT,
    evaluation INTEGER NOT NULL,
    code INTEGER NOT NULL,
    zone TEXT,
    score REAL,
    threshold REAL
);
CREATE TABLE counts (
    quarter INTEGER NOT NULL,
    evaluation INTEGER NOT NULL,
    code INTEGER NOT NULL,
    zone TEXT NOT NULL,
    results INTEGER NOT NULL,
    scored INTEGER NOT NULL,
    scores REAL NOT NULL,
    thresholds REAL NOT NULL,
    highest REAL,
    PRIMARY KEY (quarter, evaluation, code, zone)
) WITHOUT ROWID;
CREATE TABLE counted (up_to INTEGER NOT NULL);
INSERT INTO counted VALUES (0);
"""
_INSERT = "INSERT OR IGNORE INTO result VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NOT_COUNTED = f"""
SELECT created_at_ms / {QUARTER_MS} AS quarter, evaluation, code, coalesce(zone, '') AS zone, count(*) AS results,
    count(score / threshold) AS scored, total(iif(threshold IS NULL, NULL, score)) AS scores,
    total(iif(score IS NULL, NULL, threshold)) AS thresholds, max(score / threshold) AS highest
FROM result WHERE id > (SELECT up_to FROM counted) {{also}}
GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - constants
_COUNT = f"""
INSERT INTO counts {_NOT_COUNTED.format(also="")}
ON CONFLICT DO UPDATE SET results = results + excluded.results, scored = scored + excluded.scored,
    scores = scores + excluded.scores, thresholds = thresholds + excluded.thresholds,
    highest = max(coalesce(highest, excluded.highest), coalesce(excluded.highest, highest))
"""
_READ = f"""
SELECT * FROM counts WHERE quarter BETWEEN :first AND :last
UNION ALL {_NOT_COUNTED.format(also=f"AND created_at_ms / {QUARTER_MS} BETWEEN :first AND :last")}
"""  # noqa: S608 - constants
_READ_TOGETHER = f"""
SELECT together(quarter) AS first, evaluation, code, zone, sum(results), sum(scored), sum(scores), sum(thresholds),
    max(highest) FROM ({_READ}) GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - constants
_FORGET_RESULTS = """
DELETE FROM result WHERE id IN (
    SELECT id FROM result WHERE id <= (SELECT max(id) FROM result) - ? ORDER BY id LIMIT ?
)
"""
_FORGET_COUNTS = """
DELETE FROM counts WHERE quarter < (SELECT quarter FROM counts ORDER BY quarter DESC LIMIT 1 OFFSET ?)
"""
_RESULTS = """
SELECT result_id, created_at_ms, seq, part_id, evaluation, code, zone, score, threshold
FROM result WHERE created_at_ms BETWEEN ? AND ? ORDER BY id
"""
_NEWEST_SCORES = """
SELECT score FROM result WHERE created_at_ms >= ? AND score IS NOT NULL ORDER BY id DESC LIMIT ?
"""


class OneResult(NamedTuple):
    """A result as it is kept for some time; see `agent.messages.records.Result`."""

    result_id: str
    created_at_ms: int
    seq: int | None
    part_id: str | None
    evaluation: int
    code: int
    zone: str | None
    score: float | None
    threshold: float | None


class Counts(NamedTuple):
    """Results with the same verdict, reason and zone in a quarter of an hour.

    Attributes:
        quarter: Start of the quarter, ms since 1970, divided by `QUARTER_MS`.
        zone: The decisive one; empty where there is one bundle.
        results: Their number.
        scored: Those that have a score and a threshold.
        scores: Sum of the scores.
        thresholds: Sum of the thresholds.
        highest: Highest score as a multiple of the threshold.
    """

    quarter: int
    evaluation: int
    code: int
    zone: str
    results: int
    scored: int
    scores: float
    thresholds: float
    highest: float | None


def opened(path: Path) -> sqlite3.Connection:
    """Open or create the file, for several threads that share a lock.

    Raises:
        sqlite3.Error: It is damaged, locked, or cannot be written.
    """
    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")  # the other thread waits for the disk, see `checkpoint`
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_VERSION};COMMIT")
        elif version != _VERSION:
            message = f"it is of another version, {version:#x}"
            raise sqlite3.DatabaseError(message)
    except sqlite3.Error:
        database.close()
        raise
    return database


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, for reading while an agent writes it.

    Raises:
        StatisticsError: There is none, or it cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        what = f"cannot read {path}: {error}" if path.exists() else f"there are no statistics yet: no {path}"
        raise StatisticsError(what=what, remedy="let the agent of this station run; or check its state_dir") from error


def insert(database: sqlite3.Connection, results: Sequence[OneResult]) -> None:
    """Store results that are not there yet, in one transaction."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(_INSERT, results)


def count(database: sqlite3.Connection, results_kept: int) -> None:
    """Add up the results since the last call, and remove what is too old to keep, a little at a time."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.execute(_COUNT)
        database.execute("UPDATE counted SET up_to = (SELECT coalesce(max(id), 0) FROM result)")
        database.execute(_FORGET_RESULTS, (results_kept, _REMOVED_AT_ONCE))
        database.execute(_FORGET_COUNTS, (_MOST_COUNTS,))


def checkpoint(path: Path) -> None:
    """Move the log into the database and flush it, on a connection of its own: it waits for the disk."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as database:
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")


def counts_between(
    database: sqlite3.Connection, since_ms: int, until_ms: int, together: Callable[[int], int] | None = None
) -> list[Counts]:
    """All counts of the quarters from one time to another, both included; a quarter may come twice.

    Args:
        database: See `reading`.
        since_ms: First time, ms since 1970.
        until_ms: Last time.
        together: Of quarters for which this gives the same one the counts are added up, as those of that quarter.
    """
    span = {"first": since_ms // QUARTER_MS, "last": until_ms // QUARTER_MS}
    if together is not None:
        database.create_function("together", 1, together)
    return [Counts._make(row) for row in database.execute(_READ_TOGETHER if together else _READ, span)]


def results_between(database: sqlite3.Connection, since_ms: int, until_ms: int) -> Iterator[OneResult]:
    """The results that are still kept one by one, in the order of recording."""
    return (OneResult._make(row) for row in database.execute(_RESULTS, (since_ms, until_ms)))


def newest_scores(database: sqlite3.Connection, since_ms: int, most: int) -> list[float]:
    """Scores of the newest results since a time that have one, newest first; at most this many."""
    return [score for (score,) in database.execute(_NEWEST_SCORES, (since_ms, most))]
