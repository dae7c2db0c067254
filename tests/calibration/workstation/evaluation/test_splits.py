"""Which images are learned from and which are tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.errors import DatasetError, SettingError
from calibration.workstation.evaluation.splits import labelled_sets, splits

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.workstation.evaluation.labelled_set import LabelledSet

GOOD, DEFECTIVE = 57, 7


def touch(folder: Path, count: int) -> None:
    """Files that are never opened."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03}.png").touch()


def mvtec(folder: Path, learnt: int = GOOD) -> Path:
    touch(folder / "train" / "good", learnt)
    touch(folder / "test" / "good", 4)
    touch(folder / "test" / "crack", DEFECTIVE)
    return folder


@pytest.fixture
def kinds(tmp_path: Path) -> LabelledSet:
    touch(tmp_path / "good", GOOD)
    touch(tmp_path / "scratch", 5)
    touch(tmp_path / "dent", 2)
    (found,) = labelled_sets(tmp_path)
    return found


@pytest.fixture
def category(tmp_path: Path) -> LabelledSet:
    (found,) = labelled_sets(mvtec(tmp_path / "nuts"))
    return found


def test_the_first_of_five_folds_learns_the_first_four_fifths_of_the_shuffled_images(kinds: LabelledSet) -> None:
    first = splits(kinds, seeds=1, folds=None, images=None)[0]
    paths = sorted((kinds.source / "good").iterdir())
    order = np.random.default_rng(0).permutation(GOOD)
    assert list(first.learnt) == [paths[index] for index in order[: int(0.8 * GOOD)]]
    held_out = {paths[index] for index in order[int(0.8 * GOOD) :]}
    assert {image.path for image in first.test if not image.defective} == held_out


@pytest.mark.slow
def test_the_first_fold_of_magnetic_tiles_is_their_protocol(data: Path) -> None:
    (tiles,) = labelled_sets(data / "mtd")
    first = splits(tiles, seeds=1, folds=5, images=None)[0]
    assert (len(first.learnt), len(first.test)) == (761, 191 + 392)


@pytest.mark.parametrize("folds", [2, 5, 6])
def test_each_good_image_is_tested_once_a_seed_and_never_learned_from_then(kinds: LabelledSet, folds: int) -> None:
    made = splits(kinds, seeds=2, folds=folds, images=None)
    assert [(split.seed, split.fold) for split in made] == [(seed, fold) for seed in (0, 1) for fold in range(folds)]
    for split in made:
        good = {image.path for image in split.test if not image.defective}
        assert set(split.learnt) | good == set(kinds.good)
        assert not set(split.learnt) & good
        assert sum(image.defective for image in split.test) == DEFECTIVE
    for seed in (0, 1):
        tested = [image.path for split in made if split.seed == seed for image in split.test if not image.defective]
        assert sorted(tested) == list(kinds.good)


def test_seeds_shuffle_differently_and_always_alike(kinds: LabelledSet) -> None:
    made = splits(kinds, seeds=2, folds=5, images=None)
    assert made == splits(kinds, seeds=2, folds=5, images=None)
    assert set(made[0].learnt) != set(made[5].learnt)


def test_with_few_images_no_two_folds_learn_the_same_and_the_test_stays(kinds: LabelledSet) -> None:
    few, all_of_them = (splits(kinds, seeds=1, folds=5, images=images) for images in (11, None))
    assert all(len(split.learnt) == 11 for split in few)
    assert [split.test for split in few] == [split.test for split in all_of_them]
    assert few[0].learnt == all_of_them[0].learnt[:11]
    learnt = [path for split in few for path in split.learnt]
    assert len(set(learnt)) == len(learnt)


def test_a_set_that_is_divided_is_learned_from_whole_and_once(category: LabelledSet) -> None:
    (only,) = splits(category, seeds=3, folds=None, images=None)
    assert only.learnt == tuple(sorted((category.source / "train" / "good").iterdir()))
    assert {image.path.parent for image in only.test} == {category.source / "test" / kind for kind in ("good", "crack")}


def test_seeds_choose_the_few_images_of_a_set_that_is_divided(category: LabelledSet) -> None:
    made = splits(category, seeds=3, folds=None, images=10)
    assert [len(set(split.learnt)) for split in made] == [10, 10, 10]
    assert len({frozenset(split.learnt) for split in made}) == 3
    assert {split.test for split in made} == {category.test}


def test_folds_of_a_set_that_is_divided_keep_its_test(category: LabelledSet) -> None:
    made = splits(category, seeds=1, folds=5, images=None)
    assert {split.test for split in made} == {category.test}
    assert [len(split.learnt) for split in made] == [45, 46, 45, 46, 46]
    left_out = [set(category.good) - set(split.learnt) for split in made]
    assert set.union(*left_out) == set(category.good)
    assert sum(map(len, left_out)) == GOOD


def test_all_categories_of_a_root_are_found(tmp_path: Path) -> None:
    for name, learnt in (("screw", 20), ("bottle", 12)):
        mvtec(tmp_path / name, learnt)
    (tmp_path / "license.txt").touch()
    (tmp_path / "notes").mkdir()
    assert [(data.name, len(data.good)) for data in labelled_sets(tmp_path)] == [("bottle", 12), ("screw", 20)]


@pytest.mark.parametrize(
    ("missing", "said"), [("train/good", "train/good does not exist"), ("test/crack", "are needed")]
)
def test_an_incomplete_category_is_refused_and_not_left_out(tmp_path: Path, missing: str, said: str) -> None:
    mvtec(tmp_path / "bottle")
    folder = mvtec(tmp_path / "screw") / missing
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(DatasetError, match=rf"screw.* {said}|screw/{said}"):
        labelled_sets(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        labelled_sets(tmp_path / "nowhere")


def test_more_images_than_are_left_to_learn_are_refused(kinds: LabelledSet, category: LabelledSet) -> None:
    with pytest.raises(SettingError, match="has 45 good images to learn from, not 46") as refused:
        splits(kinds, seeds=1, folds=None, images=46)
    assert "--images 45 or less" in refused.value.remedy
    assert all(len(split.learnt) == 45 for split in splits(kinds, seeds=1, folds=None, images=45))
    with pytest.raises(SettingError, match=f"nuts has {GOOD} good images to learn from, not 58"):
        splits(category, seeds=1, folds=None, images=58)


def test_too_many_folds_and_too_few_images_are_refused(kinds: LabelledSet) -> None:
    with pytest.raises(SettingError, match="too few for 58 folds"):
        splits(kinds, seeds=1, folds=58, images=None)
    with pytest.raises(DatasetError, match="9 good images are too few to learn from"):
        splits(kinds, seeds=1, folds=None, images=9)


def test_the_content_is_another_when_a_file_is(kinds: LabelledSet) -> None:
    before = kinds.content_sha256
    assert kinds.content_sha256 == before
    (kinds.source / "dent" / "001.png").write_bytes(b"new")
    assert kinds.content_sha256 != before
