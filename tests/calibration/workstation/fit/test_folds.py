"""Pictures of one part vouch for each other: for the threshold they are left out together."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibration
from calibration.backbones.backbone import filterbank_backbone
from calibration.detectors.cross_validation import FOLDS, make_folds
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError, SettingError
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.folds import each_alone, part_by, parts_shown
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.outcome import assert_refused
from tests.support.photographed import save_photographed
from tests.support.washers import SIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from tests.support.outcome import Outcome

PARTS, PICTURES = 30, 4


def fitted(folder: Path, part_of: Callable[[str], str | None] | None, out: Path) -> Bundle:
    settings = Settings(Preprocess(64, 64), MeanShift(), false_reject_rate=0.05, threads=1, part_of=part_of)
    return calibrate(good_images(folder), filterbank_backbone(64, 64), settings, out, _silent)


@pytest.mark.slow
def test_held_out_alone_the_threshold_is_too_low_for_new_parts(tmp_path: Path) -> None:
    learnt = save_photographed(tmp_path / "learnt", 0, PARTS, PICTURES)
    others = save_photographed(tmp_path / "others", 500, 20, PICTURES)
    rejected, thresholds = {}, {}
    for name, part_of in {"alone": each_alone, "named": part_by(r"part(\d+)"), "found": None}.items():
        bundle = fitted(learnt, part_of, tmp_path / name)
        with OnnxRuntimeEngine(bundle.network, 1) as engine:
            scores = [engine(bundle.preprocess(image)).score for _, image in good_images(others)]
        point = bundle.manifest.working_point
        assert point.parts == (None if name == "alone" else PARTS)
        rejected[name] = float(np.mean(np.array(scores) > point.threshold))
        thresholds[name] = point.threshold
    assert rejected["alone"] > 0.5
    assert rejected["named"] < 0.25
    assert rejected["found"] < 0.25
    (finding,) = bundle.manifest.images.findings
    assert f"{PARTS * PICTURES} images show about {PARTS} parts" in finding.what
    (about,) = re.findall(rf"the threshold would be about ([\d.]+) instead of {thresholds['found']:,.4g}", finding.what)
    assert float(about) == pytest.approx(thresholds["alone"], rel=0.1)  # the pooled covariance keeps a share of each
    assert len(finding.images) == PARTS * (PICTURES - 1)
    assert finding.on_one_line.endswith(f"part003_1.png is like {learnt}/part003_0.png and 80 more")
    assert finding.images[0] == f"{learnt}/part000_1.png is like {learnt}/part000_0.png"


def test_the_interval_says_how_many_different_parts_it_rests_on(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = save_photographed(tmp_path / "parts", 0, 12, 3)
    outcome = command("fit", folder, "-o", tmp_path / "b", "--size", "64", "--same-part", "auto")
    assert "24 near copies of another image: 36 images show about 12 parts" in outcome.words
    assert (
        "few different parts for this rate: up to 22.1% of good parts may be rejected; 500 different parts"
        in outcome.words
    )
    assert "95 % interval 0.00% to 22.09%, from 12 different parts" in outcome.words


@pytest.mark.slow
def test_a_defect_that_no_other_picture_of_its_part_shows_is_suspicious(tmp_path: Path) -> None:
    folder = save_photographed(tmp_path / "parts", 0, PARTS, PICTURES)
    picture = read_image(folder / "part007_2.png")
    cv2.line(picture, (20, 20), (30, 24), (60, 60, 60), 1)
    assert cv2.imwrite(str(folder / "part007_2.png"), picture)
    reference = fitted(folder, None, tmp_path / "b").reference()
    first, *others = reference["suspicious_names"].tolist()
    assert first == f"{folder}/part007_2.png"
    parts = Counter(Path(name).name.partition("_")[0] for name in others)
    assert set(parts.values()) <= {PICTURES}, "of another part all pictures are named, as that of a stray, or none"
    assert len(parts) <= 1
    assert reference["highest_names"][0] != f"{folder}/part007_2.png"  # other parts differ more
    assert reference["suspicious_scores"][0] in reference["good_scores"]


def test_five_parts_photographed_six_times_promise_nothing(command: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = save_photographed(tmp_path / "five", 0, 5, 6)
    outcome = command("fit", folder, "-o", tmp_path / "b", "--size", "64")
    assert_refused(outcome, r"30 images show only about 5 different parts: 25 look like", "--same-part none")
    assert not (tmp_path / "b").exists()
    outcome = command("fit", folder, "-o", tmp_path / "b", "--size", "64", "--same-part", "none")
    assert outcome.code == 0
    with pytest.raises(DatasetError, match="about 5 different parts"):
        calibration.calibrate(folder, tmp_path / "c", size=(64, 64))
    assert calibration.calibrate(folder, tmp_path / "c", size=(64, 64), same_part="none").working_point.parts is None


def test_images_that_all_show_other_parts_are_left_out_one_by_one(
    good_folder: Path, small_filterbank: Backbone, tmp_path: Path
) -> None:
    settings = Settings(Preprocess(SIDE, SIDE), threads=1)
    bundles = [
        calibrate(
            good_images(good_folder), small_filterbank, replace(settings, part_of=part_of), tmp_path / name, _silent
        )
        for name, part_of in {"found": None, "alone": each_alone}.items()
    ]
    found, alone = (bundle.manifest.working_point for bundle in bundles)
    assert found == alone
    assert (found.parts, found.folds) == (None, len(good_images(good_folder)))


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
