"""Pictures for calibration: copied into the MVTec layout, that ``shiftwatch-calibrate`` reads."""

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
    """What became of the pictures.

    Attributes:
        copied: By folder.
        there: Were there already, from an earlier export.
        undecided: Neither OK nor NotOK, and marked by nobody; of a zone also defects that may lie elsewhere.
        gone: Pruned by the agent since the index was asked.
        elsewhere: Copies of an earlier export in a folder where they do not belong any more: somebody has marked them.
    """

    copied: Counter[str] = field(default_factory=Counter)
    there: int = 0
    undecided: int = 0
    gone: int = 0
    elsewhere: list[Path] = field(default_factory=list)


def folder_of(picture: ArchivedImage) -> str | None:
    """Where a picture belongs; None where nobody can say.

    What a person has said counts; else the verdict. A fifth of the OK ones that nobody has marked, always the same,
    is kept for the test: figures from pictures that were learnt mean nothing.
    """
    if picture.label is not None:
        return TRAIN_GOOD if picture.label == "good" else TEST_DEFECT
    if picture.evaluation is Evaluation.OK:
        return TRAIN_GOOD if crc32(picture.result_id.encode()) % _HELD_OUT_OF else TEST_GOOD
    return TEST_DEFECT if picture.evaluation is Evaluation.NOT_OK else None


def export(archive: Path, target: Path, picture: ArchivedImage, done: Exported, zone: str | None = None) -> None:
    """Copy one frame as it was taken; what is there already stays as it is.

    Args:
        archive: Folder of the archive.
        target: Made when needed.
        picture: Which.
        done: Is told.
        zone: Only what was found in this one counts; None where the whole picture does.

    Raises:
        ArchiveError: The picture cannot be read.
        StorageError: The target cannot be written.
    """
    folder = folder_of(picture if zone is None else _in_zone(zone, archive, picture))
    if folder is None:
        done.undecided += 1
        return
    name = _name_of(picture)
    earlier = [each for each in _FOLDERS if (target / each / name).exists()]
    done.there += folder in earlier
    done.elsewhere += [target / each / name for each in earlier if each != folder]
    if earlier:
        return
    content = _content(archive / picture.path)
    if content is None:
        done.gone += 1
        return
    try:
        _write(target / folder / name, content)
    except OSError as error:
        raise StorageError(
            what=f"cannot write into {target}: {error.strerror}",
            remedy="make room or mend permissions, and give the same command again: it goes on where it was",
        ) from error
    done.copied[folder] += 1


def _in_zone(zone: str, archive: Path, picture: ArchivedImage) -> ArchivedImage:
    """The same as far as one zone goes; nothing is known where a marked defect may lie in another one."""
    evaluation = evaluation_in(zone, archive, picture) or Evaluation.UNDEFINED
    if picture.label == "defect" and evaluation is not Evaluation.NOT_OK:
        return picture._replace(evaluation=Evaluation.UNDEFINED, label=None)
    return picture._replace(evaluation=evaluation)


def _content(path: Path) -> bytes | None:
    """None when the agent has removed it meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArchiveError(what=f"cannot read {path}: {error.strerror}", remedy="ask as the agent's user") from error


def _name_of(picture: ArchivedImage) -> str:
    """By time, and unlike those of other stations."""
    path = Path(picture.path)
    return f"{path.parent}_{path.stem}_{picture.result_id[:_ID_DIGITS]}{path.suffix}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        write_flushed(part, content)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
