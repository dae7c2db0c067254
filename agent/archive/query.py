"""Questions to the index while an agent goes on writing it."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.archive.entry import NUMBERS, ArchivedImage, zone_evaluations
from agent.archive.index import INDEX_NAME
from agent.errors import ArchiveError
from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AT_A_TIME = 500
_PATIENCE_S = 10.0
_EVER_MS = 2**62
_MOST_NAMED = 5
_COLUMNS = """
SELECT path, result_id, part_id, seq, created_at_ms, evaluation, code, score, threshold, bytes, label, marked_by,
    marked_at_ms FROM picture
"""
_WHERE = """
WHERE created_at_ms BETWEEN :since_ms AND :until_ms
    AND (:evaluation IS NULL OR evaluation = :evaluation)
    AND (:part_id IS NULL OR part_id = :part_id)
    AND (:min_score IS NULL OR score >= :min_score)
    AND (NOT :labelled OR label IS NOT NULL)
"""
_NEWEST = f"{_COLUMNS} {_WHERE} ORDER BY created_at_ms DESC, id DESC LIMIT :limit"
_NEXT = f"{_COLUMNS} {_WHERE} AND path > :after ORDER BY path LIMIT :limit"
_COUNT = f"SELECT count(*) FROM picture {_WHERE}"  # noqa: S608 - our own words
_BY_ID = f"{_COLUMNS} WHERE substr(result_id, 1, length(:id)) = :id LIMIT {_MOST_NAMED}"
_TOTALS = "SELECT evaluation, count(*), sum(bytes), min(created_at_ms) FROM picture GROUP BY evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveQuery:
    """Which pictures.

    Attributes:
        evaluation: None takes all classes.
        since_ms: Taken at this time or later.
        until_ms: Taken at this time or before.
        part_id: None takes all parts.
        min_score: None takes also those without a score.
        labelled: Only those that a person has marked.
    """

    evaluation: Evaluation | None = None
    since_ms: int = 0
    until_ms: int = _EVER_MS
    part_id: str | None = None
    min_score: float | None = None
    labelled: bool = False

    def values(self) -> dict[str, Any]:
        """For the statements."""
        return {name: getattr(self, name) for name in self.__slots__}


class Total(NamedTuple):
    """Of one class."""

    evaluation: Evaluation
    pictures: int
    bytes: int
    oldest_ms: int


class ArchiveReader:
    """Answers; makes and changes nothing.

    Args:
        database: Of the index.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def newest(self, wanted: ArchiveQuery, limit: int) -> list[ArchivedImage]:
        """The newest first."""
        rows = self._database.execute(_NEWEST, {**wanted.values(), "limit": limit})
        return [_picture(row) for row in rows]

    def count(self, wanted: ArchiveQuery) -> int:
        """How many there are."""
        (count,) = self._database.execute(_COUNT, wanted.values()).fetchone()
        return int(count)

    def each(self, wanted: ArchiveQuery) -> Iterator[ArchivedImage]:
        """All of them, the oldest first; some at a time, so that the agent's log of the index can begin anew."""
        after = ""
        while True:
            query = {**wanted.values(), "after": after, "limit": _AT_A_TIME}
            pictures = [_picture(row) for row in self._database.execute(_NEXT, query)]
            yield from pictures
            if len(pictures) < _AT_A_TIME:
                return
            after = pictures[-1].path

    def named(self, result: str) -> ArchivedImage:
        """The picture of a result.

        Args:
            result: Its identity, or the beginning of it.

        Raises:
            ArchiveError: There is none, or more than one.
        """
        found = [_picture(row) for row in self._database.execute(_BY_ID, {"id": result})]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ArchiveError(
                what=f"the archive has no picture of a result {result}",
                remedy="see `shiftwatch-agent archive list`; not every result has a picture, and the oldest go",
            )
        raise ArchiveError(
            what=f"several results begin with {result}: {', '.join(picture.result_id for picture in found)}",
            remedy="give more of it",
        )

    def totals(self) -> list[Total]:
        """Of each class that has pictures."""
        return [Total(Evaluation(evaluation), *rest) for evaluation, *rest in self._database.execute(_TOTALS)]


@contextmanager
def open_reader(directory: Path) -> Iterator[ArchiveReader]:
    """The index of an archive, for reading.

    Raises:
        ArchiveError: There is none, or it cannot be read.
    """
    with _opened(directory, _how_to_read(directory)) as database:
        yield ArchiveReader(database)


@contextmanager
def open_writer(directory: Path) -> Iterator[sqlite3.Connection]:
    """The same for a change, which waits for the agent to be done with its own.

    Raises:
        ArchiveError: There is none, or it cannot be written.
    """
    with _opened(directory, "mode=rw") as database:
        yield database


def _how_to_read(directory: Path) -> str:
    # Without a log nobody has it open, and who may not write into the folder may read it only so.
    has_log = (directory / f"{INDEX_NAME}-wal").exists()
    return "mode=ro" if has_log else "mode=ro&immutable=1"


@contextmanager
def _opened(directory: Path, how: str) -> Iterator[sqlite3.Connection]:
    path = directory / INDEX_NAME
    if not path.exists():
        raise ArchiveError(
            what=f"there is no archive in {directory}: {INDEX_NAME} is missing",
            remedy="the agent makes it when it starts, unless archive.enabled is false",
        )
    try:
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None, timeout=_PATIENCE_S
        )
        try:
            yield database
        finally:
            database.close()
    except sqlite3.Error as error:
        raise ArchiveError(
            what=f"cannot use the archive's index {path}: {error}",
            remedy="ask as the agent's user; a damaged index is made anew when the agent starts",
        ) from error


def _picture(row: tuple[Any, ...]) -> ArchivedImage:
    picture = ArchivedImage(*row)
    return picture._replace(evaluation=Evaluation(picture.evaluation))


def evaluation_in(zone: str, archive: Path, picture: ArchivedImage) -> Evaluation | None:
    """What a picture shows in one of several zones; None where that is unknown, or it was removed meanwhile."""
    try:
        return zone_evaluations((archive / picture.path).with_suffix(NUMBERS).read_bytes()).get(zone)
    except OSError:
        return None
