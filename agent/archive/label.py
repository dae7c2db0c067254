"""Labels an archived image: in a file next to it, and in the index, while an agent may be running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.archive.entry import MARK, Mark, sibling
from agent.archive.files import FILE_MODE
from agent.archive.index import SET_LABEL
from agent.archive.query import open_reader, open_writer
from agent.errors import ArchiveError
from calibration.atomic_file import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from agent.archive.entry import ArchivedImage


def mark(directory: Path, result: str, label: Mark) -> ArchivedImage:
    """Label an image; on the disk when this returns. An earlier label is replaced.

    Args:
        directory: Folder of the archive.
        result: Identity of the result, or its start.
        label: What the image shows.

    Returns:
        The image with its label.

    Raises:
        ArchiveError: There is no such image, or the archive cannot be written.
    """
    with open_reader(directory) as archive:
        image = archive.named(result)
    path = directory / sibling(image.path, MARK)
    try:
        replace_file(path, label.content(), FILE_MODE)
        with open_writer(directory) as database:
            is_there = database.execute(SET_LABEL, (*label, image.path)).rowcount
        if not is_there:  # removed by the agent a moment ago
            path.unlink(missing_ok=True)
            raise ArchiveError(
                what=f"the image of {image.result_id} has just been removed, as the oldest are",
                remedy="raise archive.max_mib or archive.max_age_days",
            )
    except OSError as error:
        raise ArchiveError(
            what=f"cannot write {path}: {error.strerror}", remedy="mark it as the agent's user, or as root"
        ) from error
    return image._replace(label=label.label, marked_by=label.by, marked_at_ms=label.at_ms)
