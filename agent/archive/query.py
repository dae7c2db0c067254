"""Reads the index, while an agent may be writing it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.archive.entry import NUMBERS, ArchivedImage, sibling, zone_evaluations, zones_labelled
from agent.archive.files import is_own_path, read
from agent.archive.index import INDEX_NAME, columns
from agent.errors import ArchiveError
from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AT_A_TIME = 500
_TIMEOUT_S = 10.0
EVER_MS = 2**53
_MAX_MATCHES = 5
_COLUMNS = """
SELECT path, result_id, part_id, seq, created_at_ms, evaluation, code, zone, score, threshold, bytes, label, marked_by,
    marked_at_ms FROM picture
"""
# What there is an index for is not rare, else SQLite would sort all images of a class instead of taking the newest.
_CONDITIONS = {
    "evaluation": "likelihood(evaluation = :evaluation, 0.9)",
    "since_ms": "created_at_ms >= :since_ms",
    "until_ms": "created_at_ms <= :until_ms",
    "part_id": "part_id = :part_id",
    "min_score": "score >= :min_score",
    "labelled": "label IS NOT NULL",
    "label": "coalesce(label, '') = :label",
    "code": "code = :code",
    "zone": "zone = :zone",
    "part_text": "instr(lower(coalesce(part_id, '')), lower(:part_text))",
    "min_ratio": "score >= :min_ratio * threshold",
}
_NEWEST = f"{_COLUMNS} WHERE {{asked}} ORDER BY created_at_ms DESC, id DESC LIMIT :limit"
_NEXT = f"{_COLUMNS} WHERE {{asked}} AND path > :after ORDER BY path LIMIT :limit"
_OLDER = f"""
{_COLUMNS} WHERE {{asked}}
    AND (created_at_ms, id) < (SELECT created_at_ms, id FROM picture WHERE result_id = :before LIMIT 1)
ORDER BY created_at_ms DESC, id DESC LIMIT :limit
"""  # noqa: S608 - our own words
_WITHOUT_ZONES = "CREATE TEMP VIEW picture AS SELECT *, '' AS zone FROM main.picture"
_ZONES = "SELECT DISTINCT zone FROM picture WHERE zone != '' ORDER BY zone"
_COUNT = "SELECT count(*) FROM picture WHERE {asked}"
_BY_ID = f"{_COLUMNS} WHERE result_id BETWEEN ? AND ? LIMIT {_MAX_MATCHES}"
_LAST_CHARACTER = chr(0x10FFFF)
_TOTALS = "SELECT evaluation, count(*), sum(bytes), min(created_at_ms) FROM picture GROUP BY evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveQuery:
    """The images to find.

    Attributes:
        evaluation: None takes all classes.
        since_ms: Earliest time.
        until_ms: Latest time.
        part_id: None takes all parts.
        min_score: None takes images without a score as well.
        labelled: Only images with a label.
        label: Only images with this label; empty for those without one.
        code: Only with this ``resultCode``.
        zone: Only where this zone was farthest above its threshold.
        part_text: Only of parts whose name contains this, in capitals or not.
        min_ratio: Only with a score of this many times the threshold or more.
    """

    evaluation: Evaluation | None = None
    since_ms: int = 0
    until_ms: int = EVER_MS
    part_id: str | None = None
    min_score: float | None = None
    labelled: bool = False
    label: str | None = None
    code: int | None = None
    zone: str | None = None
    part_text: str | None = None
    min_ratio: float | None = None

    def in_sql(self, statement: str) -> str:
        """A statement that has these conditions in place of ``{asked}``."""
        asked = [_CONDITIONS[each.name] for each in fields(self) if getattr(self, each.name) != each.default]
        return statement.format(asked=" AND ".join(asked) or "TRUE")

    def values(self) -> dict[str, Any]:
        """Parameters of the statements."""
        return {name: getattr(self, name) for name in self.__slots__}


class Total(NamedTuple):
    """Number and size of the images of one class."""

    evaluation: Evaluation
    images: int
    bytes: int
    oldest_ms: int


class ArchiveReader:
    """Answers queries; changes nothing."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def newest(self, query: ArchiveQuery, limit: int) -> list[ArchivedImage]:
        """The newest images first."""
        rows = self._database.execute(query.in_sql(_NEWEST), {**query.values(), "limit": limit})
        return [_image(row) for row in rows]

    def older(self, query: ArchiveQuery, before: str, limit: int) -> list[ArchivedImage]:
        """The newest of those older than the image of a result; none if that has been removed."""
        rows = self._database.execute(query.in_sql(_OLDER), {**query.values(), "before": before, "limit": limit})
        return [_image(row) for row in rows]

    def zones(self) -> list[str]:
        """Zones with an image on which they were NotOK."""
        return [zone for (zone,) in self._database.execute(_ZONES)]

    def count(self, query: ArchiveQuery) -> int:
        """Number of images."""
        (count,) = self._database.execute(query.in_sql(_COUNT), query.values()).fetchone()
        return int(count)

    def each(self, query: ArchiveQuery) -> Iterator[ArchivedImage]:
        """All images, oldest first; a few at a time, so that the agent can start a new log of the index."""
        after = ""
        while True:
            values = {**query.values(), "after": after, "limit": _AT_A_TIME}
            images = [_image(row) for row in self._database.execute(query.in_sql(_NEXT), values)]
            yield from images
            if len(images) < _AT_A_TIME:
                return
            after = images[-1].path

    def named(self, result: str) -> ArchivedImage:
        """The image of a result, which is given by its identity or the start of it.

        Raises:
            ArchiveError: There is none, or more than one.
        """
        found = [_image(row) for row in self._database.execute(_BY_ID, (result, result + _LAST_CHARACTER))]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ArchiveError(
                what=f"the archive has no image of a result {result}",
                remedy="see `shiftwatch-agent archive list`; not every result has an image, and the oldest are removed",
            )
        raise ArchiveError(
            what=f"several results begin with {result}: {', '.join(image.result_id for image in found)}",
            remedy="give more digits",
        )

    def totals(self) -> list[Total]:
        """The total of each class that has images."""
        return [Total(Evaluation(evaluation), *rest) for evaluation, *rest in self._database.execute(_TOTALS)]


@contextmanager
def open_reader(directory: Path) -> Iterator[ArchiveReader]:
    """The index of an archive, open for reading.

    Raises:
        ArchiveError: There is none, or it cannot be read.
    """
    with _opened(directory, _read_mode(directory)) as database:
        if "zone" not in columns(database):
            database.execute(_WITHOUT_ZONES)
        yield ArchiveReader(database)


@contextmanager
def open_writer(directory: Path) -> Iterator[sqlite3.Connection]:
    """The index of an archive, open for a change, which waits for changes of the agent.

    Raises:
        ArchiveError: There is none, or it cannot be written.
    """
    with _opened(directory, "mode=rw") as database:
        yield database


def _read_mode(directory: Path) -> str:
    # Without a log no process has it open, and a user who may not write to the folder can read it only like this.
    has_log = os.path.lexists(directory / f"{INDEX_NAME}-wal")
    return "mode=ro" if has_log else "mode=ro&immutable=1"


@contextmanager
def _opened(directory: Path, mode: str) -> Iterator[sqlite3.Connection]:
    path = directory / INDEX_NAME
    try:
        path.lstat()
    except PermissionError as error:
        raise _unusable(path, error.strerror) from error
    except OSError as error:
        raise ArchiveError(
            what=f"there is no archive in {directory}: {INDEX_NAME} is missing",
            remedy="the agent creates it when it starts, unless archive.enabled is false",
        ) from error
    try:
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=_TIMEOUT_S
        )
        try:
            yield database
        finally:
            database.close()
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, reason: object) -> ArchiveError:
    return ArchiveError(
        what=f"cannot use the archive's index {path}: {reason}",
        remedy="give the command as the agent's user; a damaged index is rebuilt when the agent starts",
    )


def _image(row: tuple[Any, ...]) -> ArchivedImage:
    image = ArchivedImage(*row)
    if not is_own_path(image.path):
        raise ArchiveError(
            what=f"the archive's index names {image.path!r}, which is not a path of the archive",
            remedy=f"stop the agent and remove {INDEX_NAME}: it is rebuilt from the files at the next start",
        )
    return image._replace(evaluation=Evaluation(image.evaluation))


def evaluation_in(zone: str, archive: Path, image: ArchivedImage) -> Evaluation | None:
    """Evaluation of an image in one of several zones; None if unknown, or if it was removed meanwhile."""
    try:
        return zone_evaluations(read(archive, sibling(image.path, NUMBERS))).get(zone)
    except OSError:
        return None


def is_about(zone: str, archive: Path, image: ArchivedImage) -> bool:
    """Whether the label of an image is about one of several zones; see `zones_labelled`."""
    try:
        return zone in zones_labelled(read(archive, sibling(image.path, NUMBERS)))
    except OSError:
        return False
