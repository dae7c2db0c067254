"""Copies images into the MVTec layout that ``shiftwatch-calibrate`` reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from agent.archive.query import evaluation_in
from agent.errors import ArchiveError
from agent.messages.records import Evaluation
from calibration.atomic_file import write_flushed
from calibration.errors import StorageError

if TYPE_CHECKING:
    from agent.archive.entry import ArchivedImage

TRAIN_GOOD, TEST_GOOD, TEST_DEFECT = "train/good", "test/good", "test/defect"
_FOLDERS = (TRAIN_GOOD, TEST_GOOD, TEST_DEFECT)
_HELD_OUT_OF = 5
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


def export(archive: Path, target: Path, image: ArchivedImage, done: Exported, zone: str | None = None) -> None:
    """Copy one original frame; existing files stay as they are.

    Args:
        archive: Folder of the archive.
        target: Created when needed.
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
    name = _name_of(image)
    earlier = [each for each in _FOLDERS if (target / each / name).exists()]
    done.there += folder in earlier
    done.elsewhere += [target / each / name for each in earlier if each != folder]
    if earlier:
        return
    content = _content(archive / image.path)
    if content is None:
        done.gone += 1
        return
    try:
        _write(target / folder / name, content)
    except OSError as error:
        raise StorageError(
            what=f"cannot write into {target}: {error.strerror}",
            remedy="free space or fix permissions, and give the same command again: it continues where it stopped",
        ) from error
    done.copied[folder] += 1


def _in_zone(zone: str, archive: Path, image: ArchivedImage) -> ArchivedImage:
    """The image with the evaluation of one zone; unknown if a labelled defect may lie in another zone."""
    evaluation = evaluation_in(zone, archive, image) or Evaluation.UNDEFINED
    if image.label == "defect" and evaluation is not Evaluation.NOT_OK:
        return image._replace(evaluation=Evaluation.UNDEFINED, label=None)
    return image._replace(evaluation=evaluation)


def _content(path: Path) -> bytes | None:
    """Content of a file; None if the agent has removed it meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArchiveError(what=f"cannot read {path}: {error.strerror}", remedy="ask as the agent's user") from error


def _name_of(image: ArchivedImage) -> str:
    """Ordered by time, and distinct from the names of other stations."""
    path = Path(image.path)
    return f"{path.parent}_{path.stem}_{image.result_id[:_ID_DIGITS]}{path.suffix}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        write_flushed(part, content)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
