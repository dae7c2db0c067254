"""Pictures of one part vouch for each other: for the threshold they are left out together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.backbones.backbone import filterbank_backbone
from calibration.detectors.cross_validation import FOLDS, make_folds
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError, SettingError
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.folds import part_by, parts_shown
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

PARTS, PICTURES = 30, 4


def photographed(folder: Path, first: int, parts: int) -> Path:
    """Parts, each with a grain of its own, four times: another light, another noise of the camera."""
    folder.mkdir()
    for part in range(first, first + parts):
        random = np.random.default_rng(part)
        grain = cv2.GaussianBlur(random.normal(0, 60, (64, 64)), (0, 0), 1.5)
        for number in range(PICTURES):
            noise = random.normal(0, 1, (64, 64))
            picture = np.clip((120 + grain) * random.uniform(0.97, 1.03) + noise, 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(folder / f"part{part:03}_{number}.png"), picture)
    return folder


@pytest.mark.slow
def test_without_it_the_threshold_is_too_low_for_new_parts(tmp_path: Path) -> None:
    learnt, others = photographed(tmp_path / "learnt", 0, PARTS), photographed(tmp_path / "others", 500, 20)
    rejected = {}
    for pattern in (None, r"part(\d+)"):
        settings = Settings(
            Preprocess(64, 64),
            MeanShift(),
            false_reject_rate=0.05,
            threads=1,
            part_of=None if pattern is None else part_by(pattern),
        )
        images = good_images(learnt)
        bundle = calibrate(images, filterbank_backbone(64, 64), settings, tmp_path / f"b{pattern is None}", _silent)
        with OnnxRuntimeEngine(bundle.network, 1) as engine:
            scores = [engine(bundle.preprocess(image)).score for _, image in good_images(others)]
        point = bundle.manifest.working_point
        assert point.parts == (None if pattern is None else PARTS)
        rejected[pattern] = float(np.mean(np.array(scores) > point.threshold))
    assert rejected[None] > 0.5
    assert rejected[r"part(\d+)"] < 0.25


@given(st.lists(st.integers(0, 40), min_size=10, max_size=200).filter(lambda parts: len(set(parts)) >= 2 * FOLDS))
def test_all_images_of_a_part_are_held_out_together_and_each_once(numbers: list[int]) -> None:
    parts = [str(number) for number in numbers]
    folds = make_folds(len(parts), sequential=False, parts=parts)
    assert folds.images == list(range(len(parts)))
    where = {parts[index]: fold for fold, indices in enumerate(folds.groups) for index in indices}
    assert all(where[parts[index]] == fold for fold, indices in enumerate(folds.groups) for index in indices)
    assert not folds.independent
    assert folds.parts == len(set(parts))
    assert min(len(indices) for indices in folds.groups) >= 1


def test_a_part_is_what_the_expression_finds() -> None:
    assert part_by(r"part(\d+)_\d")("part007_2.png") == "007"
    assert part_by(r"part\d+")("a/part007_2.png") == "part007"
    assert part_by(r"part(\d+)")("washer.png") is None
    names = ["part1_a", "part1_b", "part2_a"]
    assert parts_shown(names, part_by(r"part(\d+)"), 2) == ["1", "1", "2"]


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(SettingError, match="not a regular expression"):
        part_by("part(")
    with pytest.raises(DatasetError, match=re.escape("finds nothing in 1 of 2 names: other.png")):
        parts_shown(["part1.png", "other.png"], part_by(r"part(\d+)"), 1)
    with pytest.raises(DatasetError, match="only 1 different parts in 2 images"):
        parts_shown(["part1a", "part1b"], part_by(r"part(\d+)"), 10)


def _silent(_step: str, _done: int, _total: int) -> None:
    """Nobody watches."""
