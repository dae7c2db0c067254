"""What files of images hold beside the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.imaging.image_files import read_image
from calibration.imaging.image_form import ImageForm, image_form, looks_like_mask
from tests.calibration.imaging.test_image_files import with_orientation
from tests.support.washers import SIDE, washer

if TYPE_CHECKING:
    from pathlib import Path


def form_of(path: Path, image: np.ndarray) -> ImageForm:
    assert cv2.imwrite(str(path), image)
    return image_form(path, read_image(path))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_the_bits_that_a_deep_image_uses_are_counted(tmp_path: Path, suffix: str, bits: int) -> None:
    deep = washer(0)[..., 0].astype(np.uint16) << (bits - 8)
    form = form_of(tmp_path / f"deep{suffix}", deep)
    assert (form.bits, form.used_bits, form.is_colour) == (16, bits, False)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".bmp", ".jpg", ".webp"])
def test_an_image_of_a_byte_a_value_is_as_common_as_it_looks(tmp_path: Path, suffix: str) -> None:
    image = washer(0)[..., 0] if suffix == ".pgm" else washer(0)
    form = form_of(tmp_path / f"usual{suffix}", image)
    assert form == ImageForm(size=(SIDE, SIDE), is_colour=suffix != ".pgm")


def test_further_pages_of_a_tiff_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    assert cv2.imwritemulti(str(path), [washer(number) for number in range(3)])
    assert image_form(path, read_image(path)).has_pages


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_orientation_other_than_upright_is_noticed(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_orientation(cv2.imencode(".jpg", washer(0))[1].tobytes(), orientation))
    assert image_form(path, read_image(path)).is_turned == (orientation != 1)


@pytest.mark.parametrize("length", [0, 4, 8, 40, 200])
def test_a_file_cut_short_has_a_form(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.tif"
    assert cv2.imwrite(str(path), washer(0))
    image = read_image(path)
    path.write_bytes(path.read_bytes()[:length])
    assert image_form(path, image).size == (SIDE, SIDE)


def test_masks_look_like_masks_and_photos_do_not(data: Path) -> None:
    tiles = sorted((data / "mtd").glob("MT_*/Imgs/exp1_*"))
    masks = [path for path in tiles if path.suffix == ".png" and "Free" not in str(path)]
    assert all(looks_like_mask(read_image(path)) for path in masks)
    assert not any(looks_like_mask(read_image(path)) for path in tiles if path.suffix == ".jpg")


@pytest.mark.parametrize("values", [(0, 0), (0, 255), (0, 1), (0, 3)])
def test_drawn_masks_look_like_masks(values: tuple[int, int]) -> None:
    mask = np.full((SIDE, SIDE, 3), values[0], np.uint8)
    mask[10:20, 10:20] = values[1]
    assert looks_like_mask(mask)
    assert not looks_like_mask(washer(0))
