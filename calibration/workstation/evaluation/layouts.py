"""Data sets as they come from their authors, where that is not the layout of MVTec AD."""

from __future__ import annotations

import csv
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from calibration.errors import DatasetError
from calibration.imaging.image_files import read_mask
from calibration.workstation.dataset import GOOD, distinct
from calibration.workstation.evaluation.cifar10 import cifar10_sets
from calibration.workstation.evaluation.labelled_set import LabelledSet
from calibration.workstation.labelled_images import Labelled, labelled_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_VISA_DIVISION = PurePosixPath("split_csv/1cls.csv")
_VISA_COLUMNS = ("object", "split", "label", "image", "mask")
_DEFECT = "defect"


def sets_in_own_layout(source: Path, unpacked: Path | None = None) -> list[LabelledSet]:
    """The sets in a folder of VisA, KolektorSDD, KolektorSDD2 or CIFAR-10; none if it is not one of these.

    Args:
        source: The folder that the authors' archive becomes. One category of VisA is taken as well.
        unpacked: An empty folder for images that are not files, as those of CIFAR-10; None: these are not looked for.

    Raises:
        DatasetError: A file is missing or does not say what it should.
        StorageError: No room to unpack.
    """
    return (
        _visa(source)
        or _kolektor(source)
        or _kolektor2(source)
        or ([] if unpacked is None else cifar10_sets(source, unpacked))
    )


def images_to_score(source: Path) -> list[Labelled]:
    """The labelled images of a folder in any layout: of a set that is divided, those to test.

    Raises:
        DatasetError: None, or several categories.
    """
    found = sets_in_own_layout(source)
    if len(found) > 1:
        raise DatasetError(
            what=f"{source.absolute()} has {len(found)} categories: {', '.join(each.name for each in found)}",
            remedy="give the folder of one of them",
        )
    return list(found[0].test) if found else labelled_images(source)


def _visa(source: Path) -> list[LabelledSet]:
    """By ``split_csv/1cls.csv``, the list of what to learn from and what to test in each category (Zou et al. 2022)."""
    root = source if (source / _VISA_DIVISION).is_file() else source.absolute().parent
    division = root / _VISA_DIVISION
    if not division.is_file():
        if any((folder / "Data/Images/Normal").is_dir() for folder in (source, *_folders(source))):
            raise DatasetError(
                what=f"{source.absolute()} looks like VisA, but has no {_VISA_DIVISION}",
                remedy="unpack the whole archive: this file says what to learn from and what to test",
            )
        return []
    with division.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(_VISA_COLUMNS) <= set(rows[0]):
        raise DatasetError(
            what=f"{division.absolute()} does not have the columns {', '.join(_VISA_COLUMNS)}",
            remedy="copy it from the archive again",
        )
    names = sorted({row["object"] for row in rows})
    chosen = names if root == source else [name for name in names if name == source.resolve().name]
    return [_visa_category(root, name, [row for row in rows if row["object"] == name]) for name in chosen]


def _visa_category(root: Path, name: str, rows: Iterable[Mapping[str, str]]) -> LabelledSet:
    learnt, test = [], []
    for row in rows:
        path = _listed(root, name, row["image"])
        if row["split"] == "train":
            learnt.append(path)
        elif row["label"] == "normal":
            test.append(Labelled(path, GOOD))
        else:
            test.append(Labelled(path, _DEFECT, _listed(root, name, row["mask"]) if row["mask"] else None))
    good, copies = distinct(sorted(learnt))
    return LabelledSet(name, root / name, tuple(good), tuple(test), divided=True, copies=tuple(copies))


def _listed(root: Path, category: str, name: str) -> Path:
    """A file of this category that a list names."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] != category or ".." in parts or not (root / name).is_file():
        raise DatasetError(
            what=f"{_VISA_DIVISION} names {name or 'no image'}, which is not a file in {(root / category).absolute()}",
            remedy="unpack the whole archive again",
        )
    return root / name


def _kolektor(source: Path) -> list[LabelledSet]:
    """KolektorSDD (Tabernik et al. 2019): surfaces of a commutator in each folder, with the defect's area.

    A commutator is either learned from or tested.
    """
    folders = [folder for folder in _folders(source) if re.fullmatch(r"kos\d+", folder.name)]
    images = [
        _by_area(path, path.with_name(f"{path.stem}_label.bmp"))
        for folder in folders
        for path in sorted(folder.glob("Part*.jpg"))
    ]
    if not images:
        return []
    good, copies = distinct([image.path for image in images if not image.defective])
    return [
        LabelledSet(
            source.resolve().name,
            source,
            tuple(good),
            tuple(images),
            divided=False,
            copies=tuple(copies),
            part_folders=True,
        )
    ]


def _kolektor2(source: Path) -> list[LabelledSet]:
    """KolektorSDD2 (Bozic et al. 2021): ``train`` and ``test``, each with images and the areas of their defects.

    Only good images are learned from; the defective ones of ``train`` are left out.
    """
    if not any((source / "train").glob("*_GT.png")):
        return []
    learnt, test = (
        [
            _by_area(path, path.with_name(f"{path.stem}_GT.png"))
            for path in sorted((source / part).glob("*.png"))
            if not path.stem.endswith("_GT")
        ]
        for part in ("train", "test")
    )
    good, copies = distinct([image.path for image in learnt if not image.defective])
    return [LabelledSet(source.resolve().name, source, tuple(good), tuple(test), divided=True, copies=tuple(copies))]


def _by_area(path: Path, area: Path) -> Labelled:
    """Defective if any pixel of the area is non-zero."""
    if not area.is_file():
        raise DatasetError(what=f"{path} has no {area.name} next to it", remedy="unpack the whole archive again")
    return Labelled(path, _DEFECT, area) if read_mask(area).any() else Labelled(path, GOOD)


def _folders(source: Path) -> list[Path]:
    return sorted(entry for entry in source.iterdir() if entry.is_dir())
