"""Labelled data sets, divided into images to learn from and images to test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import DatasetError, SettingError
from calibration.imaging.image_files import image_files_in
from calibration.workstation.dataset import GOOD, distinct
from calibration.workstation.labelled_images import Labelled, labelled_images
from calibration.workstation.settings import MINIMUM_IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

USUAL_FOLDS = 5


@dataclass(frozen=True)
class LabelledSet:
    """One data set.

    Attributes:
        name: Name of its folder.
        good: Good images to learn from, sorted.
        test: Labelled images; of a set that is not divided, these include all of ``good``.
        divided: The set itself says what to learn from and what to test, as MVTec does.
        copies: Files with the bytes of one of ``good``, each with that one; they are not learned from.
    """

    name: str
    source: Path
    good: tuple[Path, ...]
    test: tuple[Labelled, ...]
    divided: bool
    copies: tuple[tuple[Path, Path], ...] = ()

    @property
    def content_sha256(self) -> str:
        """Digest of the names and sizes of all files: it differs where the set does."""
        masks = (image.mask for image in self.test if image.mask)
        files = sorted({*self.good, *(image.path for image in self.test), *masks})
        lines = (f"{file.relative_to(self.source)} {file.stat().st_size}\n" for file in files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


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


def labelled_sets(source: Path) -> list[LabelledSet]:
    """The data sets in a folder.

    Args:
        source: One MVTec category (``train/good``, ``test/<kind>``), a folder of such categories, or any other layout
            that ``labelled_images`` knows.

    Raises:
        DatasetError: None of these, or one without good or without defective images to test.
    """
    if not source.is_dir():
        raise DatasetError(what=f"{source.absolute()} is not a folder", remedy="give a folder of labelled images")
    categories = _categories(source)
    if categories:
        return [_divided(category.resolve()) for category in categories]
    images = tuple(labelled_images(source))
    good, copies = distinct(sorted(image.path for image in images if not image.defective))
    return [LabelledSet(source.resolve().name, source, tuple(good), images, divided=False, copies=tuple(copies))]


def _categories(source: Path) -> list[Path]:
    """Folders in MVTec layout: the source, or those in it, one of which may be incomplete."""
    if (source / "train" / GOOD).is_dir():
        return [source]
    inside = [
        folder for folder in sorted(source.iterdir()) if (folder / "train").is_dir() or (folder / "test").is_dir()
    ]
    return inside if any((folder / "train" / GOOD).is_dir() for folder in inside) else []


def _divided(category: Path) -> LabelledSet:
    folder = category / "train" / GOOD
    if not folder.is_dir():
        raise DatasetError(what=f"{folder} does not exist", remedy="complete the data set, or remove that folder of it")
    good, copies = distinct(image_files_in(folder))
    images = tuple(labelled_images(category))
    return LabelledSet(category.name, category, tuple(good), images, divided=True, copies=tuple(copies))


def splits(data: LabelledSet, *, seeds: int, folds: int | None, images: int | None) -> list[Split]:
    """All divisions of a set.

    Seed s shuffles the sorted good images with ``default_rng(s).permutation``. Of k folds, fold 0 holds out the last
    k-th part, fold 1 the one before it, and so on; the others are learned from, first those after the held-out part,
    then those before it. So with five folds, fold 0 of seed 0 learns from the first four fifths and tests the last, and
    with few ``images`` no two folds learn from the same.

    A divided set always keeps its own test: with folds, held-out images are neither learned from nor tested (Rippel et
    al. 2021); without, all its good images are learned from, once, since a seed would change nothing.

    Args:
        data: The set.
        seeds: Number of shuffles.
        folds: Parts of the good images; None: five, or none for a divided set.
        images: Learn from only this many, the first ones; the test stays the same.

    Raises:
        SettingError: More folds or images than there are good ones.
        DatasetError: Too few good images to learn from.
    """
    _refuse_too_many(data, folds or (0 if data.divided else USUAL_FOLDS), images)
    if data.divided and folds is None:
        return list(_of_given(data, seeds, images))
    return [
        _fold(data, seed, fold, folds or USUAL_FOLDS, images)
        for seed in range(seeds)
        for fold in range(folds or USUAL_FOLDS)
    ]


def _refuse_too_many(data: LabelledSet, folds: int, images: int | None) -> None:
    count = len(data.good)
    if folds > count:
        raise SettingError(
            what=f"{data.name} has {count} good images, too few for {folds} folds",
            remedy=f"give --folds {count} or less",
        )
    left = count - -(-count // folds) if folds else count
    if images is not None and images > left:
        raise SettingError(
            what=f"{data.name} has {left} good images to learn from, not {images}",
            remedy=f"give --images {left} or less, or leave it out to learn from all",
        )
    if (images or left) < MINIMUM_IMAGES:
        raise DatasetError(
            what=f"{data.name}: {images or left} good images are too few to learn from",
            remedy=f"learn from at least {MINIMUM_IMAGES}; each good image can be used to learn or to test, not both",
        )


def _of_given(data: LabelledSet, seeds: int, images: int | None) -> Iterator[Split]:
    if images is None:
        yield Split(data, 0, None, None, data.good, data.test)
        return
    for seed in range(seeds):
        yield Split(data, seed, None, None, _shuffled(data.good, seed)[:images], data.test)


def _fold(data: LabelledSet, seed: int, fold: int, folds: int, images: int | None) -> Split:
    shuffled = _shuffled(data.good, seed)
    start, end = (len(shuffled) * (folds - fold - part) // folds for part in (1, 0))
    learnt, held_out = shuffled[end:] + shuffled[:start], frozenset(shuffled[start:end])
    test = (image for image in data.test if data.divided or image.defective or image.path in held_out)
    return Split(data, seed, folds, fold, learnt[:images], tuple(test))


def _shuffled(paths: Sequence[Path], seed: int) -> tuple[Path, ...]:
    return tuple(paths[index] for index in np.random.default_rng(seed).permutation(len(paths)))
