"""The files of the archive: one folder per day, each image written completely or not at all."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from agent.archive.entry import FRAME, MARK, NUMBERS, OVERLAY, sibling
from calibration.atomic_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o640, 0o750
_ENDINGS = (NUMBERS, OVERLAY, FRAME, MARK)  # the numbers are removed first: what is left then is not an image any more
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_OWN_PATH = re.compile(_DAY.pattern + r"/\d{6}-\d{3}_\d+\.png", re.ASCII)
_OWN_FILE = re.compile(r"(\d{6}-\d{3}_\d+)(\.png|\.overlay\.jpg|\.json|\.mark)(\.part)?")


class OwnFile(NamedTuple):
    """A file of the archive.

    Attributes:
        path: Path below the archive of the frame that it belongs to.
        ending: Ending of the file; None for one that is only partly written.
    """

    name: str
    path: str
    ending: str | None
    size_bytes: int


def is_own_path(path: str) -> bool:
    """Whether a path has the form of a frame's below the archive; any other may lead out of it."""
    return _OWN_PATH.fullmatch(path) is not None


def read(directory: Path, path: str) -> bytes:
    """Content of a file of the archive.

    Raises:
        OSError: It cannot be read, or is none: a link, a pipe, a device.
    """
    with open_regular(directory / path, os.O_NOFOLLOW) as file:
        return file.read()


def make_folder(folder: Path) -> None:
    """Create a folder, for its owner and its group, if it does not exist."""
    folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)


def write(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of one image in this order, all or none; each gets its name when all are written.

    Without fsync: a power cut may lose the last images, which matters less than the time on a slow card.

    Args:
        directory: Folder of the archive.
        contents: Content by path below it.

    Raises:
        OSError: The disk refuses; nothing is left behind.
    """
    paths = {directory / path: content for path, content in contents.items()}
    try:
        for path, content in paths.items():
            make_folder(path.parent)
            _write_part(_part_of(path), content)
        for path in paths:
            _part_of(path).replace(path)
    except OSError:
        for path in paths:
            with suppress(OSError):
                _part_of(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        raise


def remove(directory: Path, paths: Iterable[str]) -> None:
    """Remove images, named by their frames, and folders of days that are empty then.

    Raises:
        OSError: The disk refuses; all or some are still there.
    """
    days = set()
    for path in paths:
        for ending in _ENDINGS:
            (directory / sibling(path, ending)).unlink(missing_ok=True)
        days.add((directory / path).parent)
    for day in days:
        with suppress(OSError):  # not empty: the day has more
            day.rmdir()


def days_in(directory: Path) -> list[str]:
    """Names of the folders of days, oldest first."""
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if _DAY.fullmatch(entry.name) and entry.is_dir())


def own_files(directory: Path, day: str) -> Iterator[OwnFile]:
    """The archive's files of a day; other files are skipped."""
    with os.scandir(directory / day) as entries:
        for entry in entries:
            own = _OWN_FILE.fullmatch(entry.name)
            if own is None:
                continue
            with suppress(FileNotFoundError):  # removed since the folder was opened
                size_bytes = entry.stat(follow_symlinks=False).st_size
                yield OwnFile(entry.name, f"{day}/{own[1]}{FRAME}", None if own[3] else own[2], size_bytes)


def _write_part(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(content)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
