"""Labelled images, in the layouts that data sets have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.errors import DatasetError
from calibration.imaging.image_files import read_image, read_mask
from calibration.workstation.dataset import good_images
from calibration.workstation.labelled_images import labelled_images
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from pathlib import Path


def mask_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 30:40] = 255
    assert cv2.imwrite(str(path), mask)
    return path


@pytest.mark.parametrize("name", ["000.png", "000_mask.png"])
def test_masks_of_the_mvtec_layout_are_found(tmp_path: Path, name: str) -> None:
    save(tmp_path / "test/good", [washer(0)])
    save(tmp_path / "test/scratch", [washer(1), washer(2)])
    mask = mask_file(tmp_path / "ground_truth/scratch" / name)
    found = {str(each.path.relative_to(tmp_path)): each for each in labelled_images(tmp_path)}
    assert {name: (each.label, each.defective, each.mask) for name, each in found.items()} == {
        "test/good/000.png": ("good", False, None),
        "test/scratch/000.png": ("scratch", True, mask),
        "test/scratch/001.png": ("scratch", True, None),
    }


def test_masks_next_to_jpegs_are_masks_and_not_images(tmp_path: Path) -> None:
    for folder in ("MT_Free/Imgs", "MT_Crack/Imgs"):
        save(tmp_path / folder, [washer(0), washer(1)], ".jpg")
        mask_file(tmp_path / folder / "000.png")
    images = labelled_images(tmp_path)
    assert [(each.path.name, each.label) for each in images] == [
        ("000.jpg", "Crack"),
        ("001.jpg", "Crack"),
        ("000.jpg", "good"),
        ("001.jpg", "good"),
    ]
    assert [each.mask for each in images] == [tmp_path / "MT_Crack/Imgs/000.png", None, None, None]


def test_one_folder_a_kind_is_understood(labelled_folder: Path) -> None:
    images = labelled_images(labelled_folder)
    assert [each.label for each in images] == ["good"] * 8 + ["scratch"] * 8
    assert not any(each.mask for each in images)


def test_a_mask_is_what_is_not_black(tmp_path: Path) -> None:
    mask = read_mask(mask_file(tmp_path / "mask.png"))
    assert mask.dtype == np.bool_
    assert mask.sum() == 100
    assert mask[10:20, 30:40].all()


@pytest.mark.parametrize("kinds", [[], ["good"], ["scratch"], ["scratch", "dent"]])
def test_without_good_and_defective_images_nothing_can_be_evaluated(tmp_path: Path, kinds: list[str]) -> None:
    for kind in kinds:
        save(tmp_path / kind, [washer(0)])
    expected = ", ".join(sorted(kinds)) or "nothing"
    with pytest.raises(DatasetError, match=f"has images of {expected};"):
        labelled_images(tmp_path)


def test_labelled_images_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        labelled_images(tmp_path / "nowhere")


@pytest.mark.slow
def test_the_magnetic_tiles_are_all_found_with_their_masks(data: Path) -> None:
    images = labelled_images(data / "mtd")
    good = [each for each in images if not each.defective]
    defective = [each for each in images if each.defective]
    assert (len(good), len(defective)) == (952, 392)
    assert {each.label for each in defective} == {"Blowhole", "Break", "Crack", "Fray", "Uneven"}
    assert {each.path.suffix for each in images} == {".jpg"}
    for each in defective[::40]:
        assert each.mask is not None
        mask = read_mask(each.mask)
        assert mask.any()
        assert mask.shape == read_image(each.path).shape[:2]


def test_the_hazelnuts_are_found_with_their_masks(data: Path) -> None:
    images = labelled_images(data / "hazelnut")
    assert sum(each.defective for each in images) == 17
    assert all((each.mask is not None) == each.defective for each in images)
    assert len(good_images(data / "hazelnut")) == 28
