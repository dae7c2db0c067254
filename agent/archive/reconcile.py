"""Makes the index and the files agree, after a process was killed, a power cut, or a move of files."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from agent.archive.entry import MARK, NUMBERS, image_from, mark_from, room_of, sibling
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
    """Go through all days in small steps; between two steps images may be written and removed.

    Files without numbers, or of another size than the numbers say, are remains of an image and are removed. An image
    without a row gets one; a row without an image is removed. An index that is being rebuilt starts with the oldest
    day, to keep the order; else the newest comes first, where a killed process has left its traces.

    What can be neither read nor removed is logged and left: one bad sector must not stop the rest.

    Raises:
        OSError: The archive's own folder cannot be read.
        sqlite3.Error: The index fails.
    """
    days = sorted({*days_in(directory), *index.days()}, reverse=index.is_complete)
    for day in days:
        yield from _Day(directory, index, day).reconcile()
    index.note_complete()


class _Day:
    """The folder of one day."""

    def __init__(self, directory: Path, index: Index, day: str) -> None:
        self._directory = directory
        self._index = index
        self._day = day
        # Rows added from now on need no check, and their files may be seen only in part.
        self._last_id = index.last_id

    def reconcile(self) -> Iterator[None]:
        found: dict[str, dict[str, OwnFile]] = defaultdict(dict)
        try:
            yield from self._find(found)
        except FileNotFoundError:
            found.clear()  # the folder was removed: its rows are removed, too
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
            _log.warning("archive: %d incomplete images of %s removed", debris, self._day)

    def _find(self, found: dict[str, dict[str, OwnFile]]) -> Iterator[None]:
        for number, file in enumerate(own_files(self._directory, self._day)):
            if file.ending is None:
                (self._directory / self._day / file.name).unlink(missing_ok=True)
            else:
                found[file.path][file.ending] = file
            if number % _AT_A_TIME == 0:
                yield

    def _is_debris(self, path: str, files: Mapping[str, OwnFile]) -> bool:
        """Make the row fit; or, if there is no complete image, remove its remains."""
        row = self._index.row(path)
        if row is not None and row.id > self._last_id:
            return False
        sizes = {ending: file.size_bytes for ending, file in files.items() if ending != MARK}
        if row is None or row.bytes != sum(map(room_of, sizes.values())):
            image = self._image(path, sizes)
            if image is None:
                is_debris = any((self._directory / sibling(path, ending)).exists() for ending in files)
                self._index.forget([path])
                remove(self._directory, [path])
                return is_debris
            self._index.add(image)
            row = Row(self._last_id, image.bytes, None)
        if MARK in files or row.mark is not None:
            mark = self._mark(path)  # read again: it may be newer than the listing of the folder
            if mark != row.mark:
                self._index.mark(path, mark)
        return False

    def _image(self, path: str, sizes: Mapping[str, int]) -> ArchivedImage | None:
        try:
            return image_from(path, (self._directory / sibling(path, NUMBERS)).read_bytes(), sizes)
        except FileNotFoundError:
            return None

    def _mark(self, path: str) -> Mark | None:
        try:
            return mark_from((self._directory / sibling(path, MARK)).read_bytes())
        except FileNotFoundError:
            return None
