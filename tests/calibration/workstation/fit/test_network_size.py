"""The size of the network input follows the aspect of what is inspected, and the time that the network may take."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.backbones.backbone import Backbone, filterbank_backbone
from calibration.backbones.filterbank import filterbank
from calibration.errors import SettingError
from calibration.imaging.preprocess import Preprocess, Region
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.fit import network_size
from calibration.workstation.fit.backbone_choice import FILTERBANK, BackboneChoice, fixed_size
from calibration.workstation.fit.network_size import network_sizes, size_of_aspect
from calibration.workstation.settings import PreprocessRequest, Settings
from tests.support.washers import Drawn, save

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.workstation.dataset import Images

USUAL = 224 * 224


def chosen_size(images: Images, choice: BackboneChoice | Backbone, chosen_by: Settings) -> tuple[int, int]:
    """The size without tuning."""
    return network_sizes(images, choice, chosen_by)[0]


def frames(rows: int, columns: int, count: int = 3) -> Drawn:
    return Drawn([np.zeros((rows, columns, 3), np.uint8)] * count)


def settings(region: Region | None = None, max_ms: float | None = None, *, choose: bool = True) -> Settings:
    return Settings(Preprocess(224, 224, region), learn=PreprocessRequest(choose_size=choose, max_ms=max_ms), threads=1)


@given(st.integers(50, 4000), st.integers(50, 4000), st.sampled_from([USUAL, 2 * USUAL, 4 * USUAL]))
def test_the_aspect_is_kept_and_the_pixels_as_well(rows: int, columns: int, pixels: int) -> None:
    height, width = size_of_aspect(rows, columns, pixels)
    assert not height % 32
    assert not width % 32
    assert min(height, width) >= 64
    if max(rows, columns) < 8 * min(rows, columns):
        assert height * width == pytest.approx(pixels, rel=0.25)
        assert abs(log(height / width) - log(rows / columns)) < log(1.3)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [(512, 512, (224, 224)), (480, 640, (192, 256)), (1080, 1920, (160, 288)), (1260, 500, (352, 128))],
)
def test_usual_frames(rows: int, columns: int, expected: tuple[int, int]) -> None:
    assert size_of_aspect(rows, columns, USUAL) == expected


def test_the_region_counts_not_the_frame() -> None:
    assert chosen_size(frames(480, 640), FILTERBANK, settings(Region(0, 0, 600, 150))) == (128, 448)


def test_a_size_that_was_asked_for_stays() -> None:
    assert network_sizes(frames(480, 640), FILTERBANK, settings(choose=False)) == [(224, 224)]


def test_a_backbone_that_is_built_keeps_its_size() -> None:
    assert network_sizes(frames(480, 640), filterbank_backbone(96, 128), settings()) == [(96, 128)]


def test_an_onnx_file_of_one_size_gets_that_size(tmp_path: Path) -> None:
    file = tmp_path / "fixed.onnx"
    onnx.save(filterbank(96, 160), file)
    fixed = BackboneChoice(str(file))
    assert network_sizes(frames(480, 640), fixed, settings()) == [(96, 160)]
    assert fixed_size(FILTERBANK) is None


def test_a_transformer_gets_the_size_it_was_trained_with() -> None:
    pytest.importorskip("timm")
    assert fixed_size(BackboneChoice("vit_small_patch14_dinov2")) == (518, 518)
    assert fixed_size(BackboneChoice("tf_efficientnet_lite0")) is None


def test_what_cannot_be_read_is_left_for_learning_to_say() -> None:
    assert chosen_size(Drawn([]), FILTERBANK, settings()) == (224, 224)


def timed(monkeypatch: pytest.MonkeyPatch, ms_per_megapixel: float) -> list[tuple[int, int]]:
    """Networks of this speed; returns the sizes that are measured."""
    tried = []

    def network_ms(size: tuple[int, int], *_: object) -> float:
        tried.append(size)
        return size[0] * size[1] / 1e6 * ms_per_megapixel

    monkeypatch.setattr(network_size, "_network_ms", network_ms)
    return tried


@pytest.mark.parametrize("max_ms", [3.0, 6.0, 10.0, 40.0])
def test_the_time_is_used_and_kept(monkeypatch: pytest.MonkeyPatch, max_ms: float) -> None:
    tried = timed(monkeypatch, 50.0)
    height, width = chosen_size(frames(2000, 2000), FILTERBANK, settings(max_ms=max_ms))
    took_ms = height * width / 1e6 * 50
    assert 0.6 * max_ms <= took_ms <= max_ms
    assert len(tried) <= 4


def test_no_more_pixels_than_the_region_has(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 1.0)
    height, width = chosen_size(frames(400, 400), FILTERBANK, settings(max_ms=1000))
    assert height * width == pytest.approx(400 * 400, rel=0.25)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(100, 400)] * 90 + [(400, 100)] * 10, (128, 448)),
        ([(100, 200)] * 50 + [(200, 100)] * 50, (224, 224)),
    ],
    ids=["few that differ", "no common aspect"],
)
def test_images_of_several_aspects(tmp_path: Path, shapes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    paths = save(tmp_path, [np.zeros((*shape, 3), np.uint8) for shape in shapes])
    images = ImageFiles("folder", sorted(paths.iterdir()))
    assert chosen_size(images, FILTERBANK, settings()) == expected
    assert not images.forms, "the images were read for learning"


def test_tuning_tries_the_usual_number_of_pixels_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 10.0)
    assert network_sizes(frames(1200, 1600), FILTERBANK, settings(max_ms=2)) == [(384, 512), (192, 256)]
    assert network_sizes(frames(1200, 1600), FILTERBANK, settings(max_ms=0.3)) == [(128, 160)]
    assert network_sizes(frames(1200, 1600), FILTERBANK, settings()) == [(192, 256)]


def test_a_time_that_nothing_keeps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 1e6)
    with pytest.raises(SettingError, match=r"--max-ms 2 is too short: at \d+x\d+ the network takes") as refused:
        network_sizes(frames(480, 640), FILTERBANK, settings(max_ms=2))
    assert "filterbank" in refused.value.remedy


def test_a_real_network_is_measured() -> None:
    chosen = chosen_size(frames(480, 640), FILTERBANK, settings(max_ms=10_000))
    assert chosen == size_of_aspect(480, 640, 480 * 640)
