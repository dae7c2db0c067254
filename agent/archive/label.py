"""A person says what a picture shows: noted beside it, and in the index, while an agent goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.archive.entry import MARK, Mark, sibling
from agent.archive.files import FILE_MODE
from agent.archive.query import open_reader, open_writer
from agent.errors import ArchiveError
from calibration.atomic_file import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from agent.archive.entry import ArchivedImage

_NOTE = "UPDATE picture SET label = ?, marked_by = ?, marked_at_ms = ? WHERE path = ?"


def mark(directory: Path, result: str, said: Mark) -> ArchivedImage:
    """Note it; on the disk when this returns. What was said before is replaced.

    Args:
        directory: Of the archive.
        result: Identity of the result, or the beginning of it.
        said: What the picture shows.

    Returns:
        The picture, marked.

    Raises:
        ArchiveError: There is no such picture, or the archive cannot be written.
    """
    with open_reader(directory) as archive:
        picture = archive.named(result)
    path = directory / sibling(picture.path, MARK)
    try:
        replace_file(path, said.content())
        path.chmod(FILE_MODE)
        _give_to_owner_of(path.parent, path)
        with open_writer(directory) as database:
            is_there = database.execute(_NOTE, (*said, picture.path)).rowcount
        if not is_there:  # pruned a moment ago
            path.unlink(missing_ok=True)
            raise ArchiveError(
                what=f"the picture of {picture.result_id} has just been removed: the oldest go",
                remedy="raise archive.max_mib or archive.max_age_days",
            )
    except OSError as error:
        raise ArchiveError(
            what=f"cannot write {path}: {error.strerror}", remedy="mark it as the agent's user, or as root"
        ) from error
    return picture._replace(label=said.label, marked_by=said.by, marked_at_ms=said.at_ms)


def _give_to_owner_of(folder: Path, path: Path) -> None:
    """What root writes the agent must be able to read."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
