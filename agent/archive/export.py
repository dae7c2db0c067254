"""Copies images into the MVTec layout that ``shiftwatch-calibrate`` reads."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from agent.archive.files import read
from agent.archive.query import evaluation_in
from agent.errors import ArchiveError
from agent.messages.records import Evaluation
from agent.state_owner import acting_as
from calibration.atomic_file import create_exclusively
from calibration.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.archive.entry import ArchivedImage
    from agent.state_owner import Rights

TRAIN_GOOD, TEST_GOOD, TEST_DEFECT = "train/good", "test/good", "test/defect"
_FOLDERS = (TRAIN_GOOD, TEST_GOOD, TEST_DEFECT)
_HELD_OUT_OF = 5
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9-]")
_ID_DIGITS = 8


@dataclass
class Exported:
    """The outcome of an export.

    Attributes:
        copied: Number of copied images by folder.
        there: Images that were there already, from an earlier export.
        undecided: Images neither OK nor NotOK, and without a label; for a zone also defects that may lie elsewhere.
        gone: Images that the agent removed since the index was read.
        elsewhere: Copies of an earlier export in the wrong folder, because they have been labelled since.
    """

    copied: Counter[str] = field(default_factory=Counter)
    there: int = 0
    undecided: int = 0
    gone: int = 0
    elsewhere: list[Path] = field(default_factory=list)


def folder_of(image: ArchivedImage) -> str | None:
    """Folder of an image; None if its class is not known.

    The label of a person counts, else the verdict. A fixed fifth of the OK images without a label is kept for the
    test: figures from images that calibration has seen mean nothing.
    """
    if image.label is not None:
        return TRAIN_GOOD if image.label == "good" else TEST_DEFECT
    if image.evaluation is Evaluation.OK:
        return TRAIN_GOOD if crc32(image.result_id.encode()) % _HELD_OUT_OF else TEST_GOOD
    return TEST_DEFECT if image.evaluation is Evaluation.NOT_OK else None


class Target:
    """The folder that images are copied into.

    Args:
        folder: Created when needed.
        rights: Used for this folder alone; None: those of the process.
    """

    def __init__(self, folder: Path, rights: Rights | None = None) -> None:
        self.folder = folder
        self._rights = rights

    def folders_of(self, name: str) -> list[str]:
        """Folders that have a file of this name."""
        with acting_as(self._rights):
            return [each for each in _FOLDERS if os.path.lexists(self.folder / each / name)]

    def write(self, folder: str, name: str, content: bytes) -> None:
        """Write a new file; no link below the target is followed.

        Raises:
            StorageError: The target cannot be written.
        """
        try:
            with acting_as(self._rights), self._opened(folder) as opened:
                _write(opened, name, content)
        except OSError as error:
            raise StorageError(
                what=f"cannot write into {self.folder}: {error.strerror}",
                remedy="free space or fix permissions, and give the same command again: it continues where it stopped",
            ) from error

    @contextmanager
    def _opened(self, folder: str) -> Iterator[int]:
        """A descriptor of a folder below the target."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            opened = os.open(self.folder, _FOLDER)
            stack.callback(os.close, opened)
            for name in folder.split("/"):
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=opened)
                opened = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=opened)
                stack.callback(os.close, opened)
            yield opened


def export(archive: Path, target: Target, image: ArchivedImage, done: Exported, zone: str | None = None) -> None:
    """Copy one original frame; existing files stay as they are.

    Args:
        archive: Folder of the archive.
        target: Where to.
        image: The image.
        done: Updated with the outcome.
        zone: Only the evaluation of this zone counts; None takes that of the whole image.

    Raises:
        ArchiveError: The image cannot be read.
        StorageError: The target cannot be written.
    """
    folder = folder_of(image if zone is None else _in_zone(zone, archive, image))
    if folder is None:
        done.undecided += 1
        return
    name = name_of(image)
    earlier = target.folders_of(name)
    done.there += folder in earlier
    done.elsewhere += [target.folder / each / name for each in earlier if each != folder]
    if earlier:
        return
    content = content_of(archive, image.path)
    if content is None:
        done.gone += 1
        return
    target.write(folder, name, content)
    done.copied[folder] += 1


def _in_zone(zone: str, archive: Path, image: ArchivedImage) -> ArchivedImage:
    """The image with the evaluation of one zone; unknown if a labelled defect may lie in another zone."""
    evaluation = evaluation_in(zone, archive, image) or Evaluation.UNDEFINED
    if image.label == "defect" and evaluation is not Evaluation.NOT_OK:
        return image._replace(evaluation=Evaluation.UNDEFINED, label=None)
    return image._replace(evaluation=evaluation)


def content_of(archive: Path, path: str) -> bytes | None:
    """Content of a file; None if the agent has removed it meanwhile.

    Raises:
        ArchiveError: It cannot be read.
    """
    try:
        return read(archive, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArchiveError(
            what=f"cannot read {archive / path}: {error.strerror}", remedy="ask as the agent's user"
        ) from error


def name_of(image: ArchivedImage) -> str:
    """Ordered by time, and distinct from the names of other stations."""
    path = Path(image.path)
    identity = _NOT_OF_A_NAME.sub("_", image.result_id[:_ID_DIGITS])
    return f"{path.parent}_{path.stem}_{identity}{path.suffix}"


def _write(folder: int, name: str, content: bytes) -> None:
    """Write a file into an open folder, completely or not at all."""
    part = f".{name}.part"
    with suppress(FileNotFoundError):  # left by a power cut
        os.unlink(part, dir_fd=folder)
    try:
        with open(create_exclusively(part, 0o666, folder), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
