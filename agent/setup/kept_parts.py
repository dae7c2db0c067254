"""Good parts that the station has kept, as images to teach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.archive.export import TEST_GOOD, TRAIN_GOOD, content_of, folder_of, name_of
from agent.archive.query import ArchiveQuery, open_reader
from agent.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.setup.tray import Tray

_NEWEST = 1000  # images


def take_kept_parts(archive: Path, tray: Tray) -> None:
    """Put the newest good parts of an archive into the tray.

    Raises:
        SetupError: It has none that are not there already.
        ShiftwatchError: The archive cannot be read, or the tray cannot take them.
    """
    taken = 0
    with open_reader(archive) as reader:
        for image in reader.newest(ArchiveQuery(), _NEWEST):
            content = content_of(archive, image.path) if folder_of(image) in {TRAIN_GOOD, TEST_GOOD} else None
            taken += content is not None and tray.add_file(name_of(image), content)
    if not taken:
        raise SetupError(
            what=f"{archive} has no good parts that are not in the tray already",
            remedy="collect some with the camera; archive.ok_every says how many OK parts are kept",
        )
