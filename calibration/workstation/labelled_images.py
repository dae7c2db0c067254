"""Labelled images, for evaluation: good ones, and those with a defect, perhaps with a mask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.errors import DatasetError
from calibration.imaging.image_files import IMAGE_SUFFIXES, MASK_SUFFIX, image_files_in
from calibration.workstation.dataset import GOOD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


GOOD_FOLDERS = (GOOD, "ok")
"""What data sets call good images; ``ok`` (BTAD) if there is no ``good``."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled image.

    Attributes:
        path: The image.
        label: ``good``, or the kind of defect.
        mask: Image of the defect's area (non-zero inside); None without one.
    """

    path: Path
    label: str
    mask: Path | None = None

    @property
    def defective(self) -> bool:
        """Whether it shows a defect."""
        return self.label != GOOD


def labelled_images(source: Path) -> list[Labelled]:
    """The labelled images of a data set.

    Layouts: MVTec AD, MPDD and BTAD (``test/<kind>``, masks in ``ground_truth/<kind>``); a folder with one sub-folder
    for each kind, one of them ``good`` or ``ok`` (masks next to the images as ``<stem>.png`` where those are JPEG); and
    Magnetic Tile Defects (``MT_Free/Imgs``, ``MT_<kind>/Imgs``).

    Raises:
        DatasetError: None of these, or no good or no defective images.
    """
    root = source / "test" if (source / "test").is_dir() else source
    if not root.is_dir():
        raise DatasetError(what=f"{source.absolute()} is not a folder", remedy="give a folder of labelled images")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    good = next((name for name in GOOD_FOLDERS if root / name in folders), GOOD)
    images = [image for folder in folders for image in _labelled_folder(folder, good, source / "ground_truth")]
    kinds = {image.label for image in images}
    if GOOD not in kinds or len(kinds) == 1:
        raise DatasetError(
            what=f"{source.absolute()} has images of {', '.join(sorted(kinds)) or 'nothing'}; "
            "good and defective ones are needed",
            remedy="lay them out as good/ and one folder for each kind of defect, or as test/good, test/<kind> (MVTec)",
        )
    return images


_MASK_ENDS = tuple(f"{end}{suffix}" for suffix in (MASK_SUFFIX, *sorted(IMAGE_SUFFIXES)) for end in ("_mask", ""))


def _labelled_folder(folder: Path, good: str, ground_truth: Path) -> Iterator[Labelled]:
    label, images = GOOD if folder.name == good else folder.name, folder
    if label.startswith("MT_") and (folder / "Imgs").is_dir():
        label, images = folder.name.removeprefix("MT_"), folder / "Imgs"
        label = GOOD if label == "Free" else label
    found = image_files_in(images)
    for path in found:
        named = (ground_truth / folder.name / f"{path.stem}{end}" for end in _MASK_ENDS)
        sibling = path.with_suffix(MASK_SUFFIX)
        mask = next((each for each in (*named, sibling) if each.is_file() and each not in found), None)
        yield Labelled(path, label, None if label == GOOD else mask)
