"""Brings the index and the files together again, after a process was killed, the power cut, or files were moved."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from agent.archive.entry import MARK, NUMBERS, mark_from, picture_from, room_of, sibling
from agent.archive.files import days_in, own_files, remove
from agent.archive.index import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.archive.entry import ArchivedImage, Mark
    from agent.archive.files import OwnFile
    from agent.archive.index import Index

_AT_A_TIME = 200

_log = logging.getLogger(__name__)


def reconcile(directory: Path, index: Index) -> Iterator[None]:
    """Go through all days, a piece at a time; between two pieces pictures may be written and pruned.

    Files without numbers, or of another size than these say, are what is left of a picture and go; a picture without
    a row gets one; a row without a picture goes. When the index is being made anew the oldest come first, as they
    were taken. Else the newest do: a process that was killed has left its traces there.

    What cannot be read, or not be removed, is told and left as it is: one bad sector must not stop the rest.

    Raises:
        OSError: The archive's own folder cannot be read.
        sqlite3.Error: The index fails.
    """
    days = sorted({*days_in(directory), *index.days()}, reverse=index.is_complete)
    for day in days:
        yield from _Day(directory, index, day).reconcile()
    index.note_complete()


class _Day:
    """One folder."""

    def __init__(self, directory: Path, index: Index, day: str) -> None:
        self._directory = directory
        self._index = index
        self._day = day
        # What is written from now on may be seen in part only, and needs no second look.
        self._last_id = index.last_id

    def reconcile(self) -> Iterator[None]:
        found: dict[str, dict[str, OwnFile]] = defaultdict(dict)
        try:
            yield from self._look(found)
        except FileNotFoundError:
            found.clear()  # somebody has removed the folder: its rows go
        except OSError as error:
            _log.warning("archive: the folder %s is left as it is: %s", self._day, error)
            return
        debris = 0
        for number, path in enumerate(sorted({*found, *self._index.paths_of(self._day)})):
            try:
                debris += self._is_debris(path, found.get(path, {}))
            except OSError as error:
                _log.warning("archive: %s is left as it is: %s", path, error)
            if number % _AT_A_TIME == 0:
                yield
        if debris:
            _log.warning("archive: %d incomplete pictures of %s removed", debris, self._day)

    def _look(self, found: dict[str, dict[str, OwnFile]]) -> Iterator[None]:
        for number, file in enumerate(own_files(self._directory, self._day)):
            if file.ending is None:
                (self._directory / self._day / file.name).unlink(missing_ok=True)
            else:
                found[file.path][file.ending] = file
            if number % _AT_A_TIME == 0:
                yield

    def _is_debris(self, path: str, files: Mapping[str, OwnFile]) -> bool:
        """Make the row fit; or, where there is no whole picture, remove what is left of it."""
        row = self._index.row(path)
        if row is not None and row.id > self._last_id:
            return False
        sizes = {ending: file.size_bytes for ending, file in files.items() if ending != MARK}
        if row is None or row.bytes != sum(map(room_of, sizes.values())):
            picture = self._picture(path, sizes)
            if picture is None:
                is_debris = any((self._directory / sibling(path, ending)).exists() for ending in files)
                self._index.forget([path])
                remove(self._directory, [path])
                return is_debris
            self._index.add(picture)
            row = Row(self._last_id, picture.bytes, None)
        if MARK in files or row.mark is not None:
            mark = self._mark(path)  # as it is now: it may be younger than our look at the folder
            if mark != row.mark:
                self._index.mark(path, mark)
        return False

    def _picture(self, path: str, sizes: Mapping[str, int]) -> ArchivedImage | None:
        try:
            return picture_from(path, (self._directory / sibling(path, NUMBERS)).read_bytes(), sizes)
        except FileNotFoundError:
            return None

    def _mark(self, path: str) -> Mark | None:
        try:
            return mark_from((self._directory / sibling(path, MARK)).read_bytes())
        except FileNotFoundError:
            return None
