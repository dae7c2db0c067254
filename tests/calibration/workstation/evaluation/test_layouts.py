"""Data sets as their authors lay them out: tiny copies of each, made here."""

from __future__ import annotations

import tempfile
from collections import Counter
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.detectors.gaussian import Gaussian
from calibration.errors import DatasetError, SettingError
from calibration.imaging.image_files import read_image, read_mask
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.evaluation.benchmark import Candidate, measured, tasks
from calibration.workstation.evaluation.cifar10 import BATCHES, CLASSES
from calibration.workstation.evaluation.layouts import images_to_score
from calibration.workstation.evaluation.splits import labelled_sets, splits
from calibration.workstation.settings import Settings
from tests.support.outcome import assert_refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.workstation.evaluation.labelled_set import LabelledSet
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

RANDOM = np.random.default_rng(0)


def image(path: Path) -> Path:
    """A picture that no other is like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), RANDOM.integers(0, 255, (12, 16, 3), np.uint8))
    return path


def area(path: Path, value: int) -> Path:
    """A mask whose defect, if the value is not 0, has this value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((12, 16), np.uint8)
    mask[2:5, 3:9] = value
    assert cv2.imwrite(str(path), mask)
    return path


def labels(data: LabelledSet) -> Counter[str]:
    return Counter(each.label for each in data.test)


def visa(root: Path) -> Path:
    """Two categories; the defects of ``candle`` have classes 1 and 3."""
    rows = ["object,split,label,image,mask"]
    for name in ("candle", "pcb1"):
        for number in range(14):
            path = f"{name}/Data/Images/Normal/{number:04}.JPG"
            image(root / path)
            rows.append(f"{name},{'train' if number < 11 else 'test'},normal,{path},")
        for number, value in enumerate((1, 3)):
            path, mask = (f"{name}/Data/{kind}/Anomaly/{number:03}" for kind in ("Images", "Masks"))
            image(root / f"{path}.JPG")
            area(root / f"{mask}.png", value)
            rows.append(f"{name},test,anomaly,{path}.JPG,{mask}.png")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def test_visa_is_divided_as_its_list_says(tmp_path: Path) -> None:
    candle, pcb = labelled_sets(visa(tmp_path / "VisA"))
    assert (candle.name, pcb.name, candle.divided) == ("candle", "pcb1", True)
    assert [path.name for path in candle.good] == [f"{number:04}.JPG" for number in range(11)]
    assert labels(candle) == {"good": 3, "defect": 2}
    masks = [each.mask for each in candle.test if each.mask]
    assert [read_mask(mask).sum() for mask in masks] == [18, 18]
    assert len(candle.content_sha256) == 64
    (split,) = splits(candle, seeds=1, folds=None, images=None)
    assert (split.learnt, split.test) == (candle.good, candle.test)


def test_one_category_of_visa_is_one_set(tmp_path: Path) -> None:
    root = visa(tmp_path)
    (pcb,) = labelled_sets(root / "pcb1")
    assert pcb == labelled_sets(root)[1]
    assert images_to_score(root / "pcb1") == list(pcb.test)
    with pytest.raises(DatasetError, match="2 categories: candle, pcb1"):
        images_to_score(root)


def test_visa_without_its_list_and_lists_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    root = visa(tmp_path)
    listed = root / "split_csv/1cls.csv"
    rows = listed.read_text().splitlines()
    for wrong in ("candle/Data/Images/Normal/9999.JPG", "../secret.JPG", "candle/../pcb1/Data/Images/Normal/0000.JPG"):
        listed.write_text("\n".join([*rows, f"candle,test,normal,{wrong},"]))
        with pytest.raises(DatasetError, match=r"names .*, which is not a file in .*candle"):
            labelled_sets(root)
    listed.write_text("image,label\n1,2\n")
    with pytest.raises(DatasetError, match="the columns object, split, label, image, mask"):
        labelled_sets(root)
    listed.unlink()
    for folder in (root, root / "candle"):
        with pytest.raises(DatasetError, match=r"no split_csv/1cls\.csv"):
            labelled_sets(folder)


def test_mpdd_is_laid_out_as_mvtec(tmp_path: Path) -> None:
    for number in range(12):
        image(tmp_path / f"tubes/train/good/{number:03}.png")
    image(tmp_path / "tubes/test/good/000.png")
    image(tmp_path / "tubes/test/anomalous/000.png")
    mask = area(tmp_path / "tubes/ground_truth/anomalous/000_mask.png", 255)
    (tubes,) = labelled_sets(tmp_path)
    assert (tubes.name, len(tubes.good), tubes.divided) == ("tubes", 12, True)
    assert labels(tubes) == {"good": 1, "anomalous": 1}
    assert [each.mask for each in tubes.test] == [mask, None]


@pytest.mark.parametrize(("suffix", "mask_suffix"), [(".bmp", ".png"), (".png", ".png"), (".bmp", ".bmp")])
def test_btad_calls_good_images_ok(tmp_path: Path, suffix: str, mask_suffix: str) -> None:
    for number in range(12):
        image(tmp_path / f"BTech/01/train/ok/{number:04}{suffix}")
    for number in range(2):
        image(tmp_path / f"BTech/01/test/ok/{number:04}{suffix}")
        image(tmp_path / f"BTech/01/test/ko/{number:04}{suffix}")
    masks = [area(tmp_path / f"BTech/01/ground_truth/ko/{number:04}{mask_suffix}", 255) for number in range(2)]
    (first,) = labelled_sets(tmp_path / "BTech")
    assert (first.name, len(first.good), first.divided) == ("01", 12, True)
    assert labels(first) == {"good": 2, "ko": 2}
    assert [each.mask for each in first.test if each.defective] == masks
    assert [each.mask for each in first.test if not each.defective] == [None, None]
    assert labelled_sets(tmp_path / "BTech/01") == [first]
    assert images_to_score(tmp_path / "BTech/01") == list(first.test)


def kolektor(root: Path) -> Path:
    """Twelve commutators of two surfaces, each second one with a defect on its second surface."""
    for part in range(12):
        for surface in range(2):
            image(root / f"kos{part + 1:02}/Part{surface}.jpg")
            area(root / f"kos{part + 1:02}/Part{surface}_label.bmp", 255 * (surface == 1 and part % 2))
    return root


def test_surfaces_of_kolektor_are_defective_where_their_area_says_so(tmp_path: Path) -> None:
    (data,) = labelled_sets(kolektor(tmp_path / "KolektorSDD"))
    assert (data.name, len(data.good), data.divided) == ("KolektorSDD", 18, False)
    assert labels(data) == {"good": 18, "defect": 6}
    assert {each.mask.name for each in data.test if each.mask} == {"Part1_label.bmp"}
    assert all((each.mask is not None) == each.defective for each in data.test)


def test_a_part_of_kolektor_is_either_learned_from_or_tested(tmp_path: Path) -> None:
    (data,) = labelled_sets(kolektor(tmp_path))
    made = splits(data, seeds=2, folds=4, images=None)
    for split in made:
        learnt, tested = {path.parent for path in split.learnt}, {each.path.parent for each in split.test}
        assert len(tested) == 3
        assert not learnt & tested
        assert learnt | tested == {each.path.parent for each in data.test}
    for seed in (0, 1):
        tested_once = Counter(each.path for split in made if split.seed == seed for each in split.test)
        assert tested_once == Counter(each.path for each in data.test)
    assert splits(data, seeds=1, folds=4, images=11)[0].learnt == made[0].learnt[:11]


def test_more_folds_than_parts_and_surfaces_without_an_area_are_refused(tmp_path: Path) -> None:
    (data,) = labelled_sets(kolektor(tmp_path))
    with pytest.raises(SettingError, match="12 parts, too few for 13 folds"):
        splits(data, seeds=1, folds=13, images=None)
    (tmp_path / "kos03/Part1_label.bmp").unlink()
    with pytest.raises(DatasetError, match=r"Part1\.jpg has no Part1_label\.bmp"):
        labelled_sets(tmp_path)


def test_kolektor2_learns_from_the_good_images_of_its_train_folder(tmp_path: Path) -> None:
    for part, count in (("train", 15), ("test", 4)):
        for number in range(count):
            image(tmp_path / f"{part}/{10000 + number}.png")
            area(tmp_path / f"{part}/{10000 + number}_GT.png", 255 * (number < 3))
    (data,) = labelled_sets(tmp_path)
    assert (len(data.good), data.divided) == (12, True)
    assert labels(data) == {"defect": 3, "good": 1}
    assert [each.mask.name for each in data.test if each.mask] == [f"{10000 + number}_GT.png" for number in range(3)]


def cifar10(root: Path, each: int = 2) -> dict[str, NDArray[np.uint8]]:
    """Files of this number of images a class, and what is in them: (n, 3073) each."""
    root.mkdir(parents=True)
    content = {}
    for batch in (*BATCHES["train"], *BATCHES["test"]):
        records = RANDOM.integers(0, 256, (len(CLASSES) * each, 3073), np.uint8)
        records[:, 0] = np.repeat(np.arange(len(CLASSES)), each)
        (root / f"{batch}.bin").write_bytes(records.tobytes())
        content[batch] = records
    return content


def test_each_class_of_cifar10_is_learned_from_once_and_tested_against_all(tmp_path: Path) -> None:
    content = cifar10(tmp_path / "bin")
    sets = labelled_sets(tmp_path / "bin", tmp_path / "unpacked")
    assert [data.name for data in sets] == list(CLASSES)
    for number, data in enumerate(sets):
        assert (len(data.good), data.divided, len(data.test)) == (10, True, 20)
        assert labels(data) == {name if name != data.name else "good": 2 for name in CLASSES}
        learnt = sorted(read_image(path)[..., ::-1].transpose(2, 0, 1).tobytes() for path in data.good)
        own = [each[1:].tobytes() for name in BATCHES["train"] for each in content[name] if each[0] == number]
        assert learnt == sorted(own)
    tested = {each.path: each.label for each in sets[0].test}
    expected = {each[1:].tobytes(): each[0] for each in content["test_batch"]}
    for path, label in tested.items():
        pixels = read_image(path)[..., ::-1].transpose(2, 0, 1).tobytes()
        assert label == ("good" if expected[pixels] == 0 else CLASSES[expected[pixels]])
    again = labelled_sets(tmp_path / "bin", tmp_path / "elsewhere")
    assert [data.content_sha256 for data in again] == [data.content_sha256 for data in sets]


def test_pickles_and_damaged_files_of_cifar10_are_refused(tmp_path: Path) -> None:
    (tmp_path / "py").mkdir()
    (tmp_path / "py/data_batch_1").write_bytes(b"cposix\nsystem\n(S'touch run'\ntR.")
    with pytest.raises(DatasetError, match="Python version of CIFAR-10"):
        labelled_sets(tmp_path / "py", tmp_path / "unpacked")
    assert not (tmp_path / "run").exists()
    cifar10(tmp_path / "bin")
    last = tmp_path / "bin/data_batch_5.bin"
    for damaged in (last.read_bytes()[:-1], b"", b"\x0a" + bytes(3072)):
        last.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"data_batch_5\.bin is not a file of CIFAR-10"):
            labelled_sets(tmp_path / "bin", tmp_path / "unpacked")
    last.unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*data_batch_5\.bin"):
        labelled_sets(tmp_path / "bin", tmp_path / "unpacked")


def test_a_class_of_cifar10_is_calibrated_and_tested(tmp_path: Path, small_filterbank: Backbone) -> None:
    cifar10(tmp_path / "bin")
    truck = labelled_sets(tmp_path / "bin", tmp_path / "unpacked")[-1]
    candidate = Candidate(small_filterbank, "gaussian", Settings(Preprocess(64, 64), Gaussian(), threads=1))
    (task,) = tasks(splits(truck, seeds=1, folds=None, images=None), [candidate])
    run = measured(task, tmp_path, lambda _share: None)
    assert (run.set, run.learnt, run.good, run.defective) == ("truck", 10, 2, 18)


def test_the_benchmark_takes_cifar10_and_leaves_nothing_behind(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar10(tmp_path / "bin")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    outcome = command("benchmark", tmp_path / "bin", "--folds", "99")
    assert_refused(outcome, "airplane has 10 good images, too few for 99 folds", "--folds 10")
    assert list((tmp_path / "temporary").iterdir()) == []
