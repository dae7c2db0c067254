"""Labelled data sets, divided into images to learn from and images to test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import DatasetError, SettingError
from calibration.imaging.image_files import image_files_in
from calibration.workstation.dataset import distinct
from calibration.workstation.evaluation.labelled_set import LabelledSet
from calibration.workstation.evaluation.layouts import sets_in_own_layout
from calibration.workstation.labelled_images import GOOD_FOLDERS, labelled_images
from calibration.workstation.settings import MINIMUM_IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from calibration.workstation.labelled_images import Labelled

USUAL_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """One division of a set.

    Attributes:
        folds: Parts of the good images; None where all of them are learned from.
        fold: Which part is held out, from 0.
        test: Images to score; none of them is learned from.
    """

    data: LabelledSet
    seed: int
    folds: int | None
    fold: int | None
    learnt: tuple[Path, ...]
    test: tuple[Labelled, ...]


def labelled_sets(source: Path, unpacked: Path | None = None) -> list[LabelledSet]:
    """The data sets in a folder.

    Args:
        source: One category of MVTec AD, MPDD or BTAD (``train/good`` or ``train/ok``, ``test/<kind>``), a folder of
            such categories, or any other layout that ``sets_in_own_layout`` or ``labelled_images`` knows.
        unpacked: See ``sets_in_own_layout``.

    Raises:
        DatasetError: None of these, or one without good or without defective images to test.
        StorageError: No room to unpack.
    """
    if not source.is_dir():
        raise DatasetError(what=f"{source.absolute()} is not a folder", remedy="give a folder of labelled images")
    found = sets_in_own_layout(source, unpacked)
    if found:
        return found
    categories = _categories(source)
    if categories:
        return [_divided(category.resolve()) for category in categories]
    images = tuple(labelled_images(source))
    good, copies = distinct(sorted(image.path for image in images if not image.defective))
    return [LabelledSet(source.resolve().name, source, tuple(good), images, divided=False, copies=tuple(copies))]


def _categories(source: Path) -> list[Path]:
    """Folders in MVTec layout: the source, or those in it, one of which may be incomplete."""
    if _good_folder(source):
        return [source]
    inside = [
        folder for folder in sorted(source.iterdir()) if (folder / "train").is_dir() or (folder / "test").is_dir()
    ]
    return inside if any(map(_good_folder, inside)) else []


def _good_folder(category: Path) -> Path | None:
    return next((folder for name in GOOD_FOLDERS if (folder := category / "train" / name).is_dir()), None)


def _divided(category: Path) -> LabelledSet:
    folder = _good_folder(category)
    if folder is None:
        raise DatasetError(
            what=f"{category / 'train' / GOOD_FOLDERS[0]} does not exist",
            remedy="complete the data set, or remove that folder of it",
        )
    good, copies = distinct(image_files_in(folder))
    images = tuple(labelled_images(category))
    return LabelledSet(category.name, category, tuple(good), images, divided=True, copies=tuple(copies))


def splits(
    data: LabelledSet, *, seeds: int, folds: int | None, images: int | None, least: int = MINIMUM_IMAGES
) -> list[Split]:
    """All divisions of a set.

    Seed s shuffles the sorted good images with ``default_rng(s).permutation``. Of k folds, fold 0 holds out the last
    k-th part, fold 1 the one before it, and so on; the others are learned from, first those after the held-out part,
    then those before it. So with five folds, fold 0 of seed 0 learns from the first four fifths and tests the last, and
    with few ``images`` no two folds learn from the same.

    Where each folder shows a part (KolektorSDD), the folders are shuffled and held out instead, with their defective
    images: no part is both learned from and tested.

    A divided set always keeps its own test: with folds, held-out images are neither learned from nor tested (Rippel et
    al. 2021); without, all its good images are learned from, once, since a seed would change nothing.

    Args:
        data: The set.
        seeds: Number of shuffles.
        folds: Parts of the good images; None: five, or none for a divided set.
        images: Learn from only this many, the first ones; the test stays the same.
        least: Number of images that all detectors can learn from.

    Raises:
        SettingError: More folds or images than there are good ones.
        DatasetError: Too few good images to learn from.
    """
    _refuse_too_many(data, folds or (0 if data.divided else USUAL_FOLDS), images, least)
    if data.divided and folds is None:
        return list(_of_given(data, seeds, images))
    return [
        _fold(data, seed, fold, folds or USUAL_FOLDS, images)
        for seed in range(seeds)
        for fold in range(folds or USUAL_FOLDS)
    ]


def _refuse_too_many(data: LabelledSet, folds: int, images: int | None, least: int) -> None:
    count = len(data.good)
    most, what = (len(_part_folders(data)), "parts") if data.part_folders else (count, "good images")
    if folds > most:
        raise SettingError(
            what=f"{data.name} has {most} {what}, too few for {folds} folds",
            remedy=f"give --folds {most} or less",
        )
    left = count - -(-count // folds) if folds else count
    if images is not None and images > left:
        raise SettingError(
            what=f"{data.name} has {left} good images to learn from, not {images}",
            remedy=f"give --images {left} or less, or leave it out to learn from all",
        )
    if (images or left) < least:
        raise DatasetError(
            what=f"{data.name}: {images or left} good images are too few to learn from",
            remedy=f"learn from at least {least}; each good image can be used to learn or to test, not both",
        )


def _of_given(data: LabelledSet, seeds: int, images: int | None) -> Iterator[Split]:
    if images is None:
        yield Split(data, 0, None, None, data.good, data.test)
        return
    for seed in range(seeds):
        yield Split(data, seed, None, None, _shuffled(data.good, seed)[:images], data.test)


def _fold(data: LabelledSet, seed: int, fold: int, folds: int, images: int | None) -> Split:
    if data.part_folders:
        return _fold_of_parts(data, seed, fold, folds, images)
    shuffled = _shuffled(data.good, seed)
    start, end = (len(shuffled) * (folds - fold - part) // folds for part in (1, 0))
    learnt, held_out = shuffled[end:] + shuffled[:start], frozenset(shuffled[start:end])
    test = (image for image in data.test if data.divided or image.defective or image.path in held_out)
    return Split(data, seed, folds, fold, learnt[:images], tuple(test))


def _fold_of_parts(data: LabelledSet, seed: int, fold: int, folds: int, images: int | None) -> Split:
    shuffled = _shuffled(_part_folders(data), seed)
    start, end = (len(shuffled) * (folds - fold - part) // folds for part in (1, 0))
    held_out = frozenset(shuffled[start:end])
    learnt = _shuffled([path for path in data.good if path.parent not in held_out], seed)
    test = tuple(image for image in data.test if image.path.parent in held_out)
    return Split(data, seed, folds, fold, learnt[:images], test)


def _part_folders(data: LabelledSet) -> list[Path]:
    return sorted({image.path.parent for image in data.test})


def _shuffled(paths: Sequence[Path], seed: int) -> tuple[Path, ...]:
    return tuple(paths[index] for index in np.random.default_rng(seed).permutation(len(paths)))
