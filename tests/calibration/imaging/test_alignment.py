"""The region of interest follows the part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import GoldenCheck, open_bundle
from calibration.deployment.latency import Latency
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError, SettingError
from calibration.imaging.alignment import Alignment
from calibration.imaging.preprocess import Preprocess, Region
from calibration.workstation.fit.learn_preprocess import learn_preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.report.report import report_page
from calibration.workstation.settings import AUTO_PX, PreprocessRequest, Settings
from tests.support.outcome import assert_refused
from tests.support.plates import FRAME_PX, REGION, displaced, plate
from tests.support.washers import Drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

LIMIT_PX = 10
PLAIN = Preprocess(64, 64, REGION)


def preprocess_from(pictures: Sequence[Image], limit_px: int = LIMIT_PX, plain: Preprocess = PLAIN) -> Preprocess:
    return learn_preprocess(Drawn(pictures), plain, PreprocessRequest(limit_px), lambda *_: None)


@pytest.fixture(scope="module")
def following() -> Preprocess:
    return preprocess_from(displaced(40, 8))


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pictures = Drawn(displaced(40, 8))
    settings = Settings(learn_preprocess(pictures, PLAIN, PreprocessRequest(LIMIT_PX), lambda *_: None), threads=1)
    path = tmp_path_factory.mktemp("aligned") / "plates"
    return calibrate(pictures, filterbank_backbone(64, 64), settings, path, lambda *_: None)


def darker(frame: Image) -> Image:
    return np.asarray(np.clip(frame * np.linspace(0.5, 0.8, frame.shape[1])[None, :, None], 0, 255), np.uint8)


def noisier(frame: Image) -> Image:
    return np.asarray(np.clip(frame + np.random.default_rng(1).normal(0, 12, frame.shape), 0, 255), np.uint8)


def with_defect(frame: Image) -> Image:
    patched: Image = frame.copy()
    patched[70:95, 75:100] = (10, 10, 230)
    return patched


def as_it_is(frame: Image) -> Image:
    return frame


@pytest.mark.parametrize("change", [as_it_is, darker, noisier, with_defect])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (7, -3), (-8, 8), (1, 5)])
def test_a_displacement_is_found_to_a_pixel(
    following: Preprocess, change: Callable[[Image], Image], right: int, down: int
) -> None:
    here, there = following.locate(change(plate(900))), following.locate(change(plate(900, right, down)))
    assert here.displacement is not None
    assert there.displacement is not None
    assert there.region == REGION.moved(*there.displacement)
    found = np.subtract(there.displacement, here.displacement)
    assert np.abs(found - (right, down)).max() <= 1


def test_the_region_takes_the_pixels_of_the_frame_and_no_border(following: Preprocess) -> None:
    frame = plate(900, 6, -5)
    place = following.locate(frame)
    cut = frame[place.region.y : place.region.y + 112, place.region.x : place.region.x + 112]
    np.testing.assert_array_equal(following(frame), following.resize(cut))


def test_good_parts_are_found_near_the_region_of_interest(following: Preprocess) -> None:
    places = [following.locate(frame) for frame in displaced(40, 8, seed=5)]
    assert np.abs(np.median([place.displacement for place in places if place.displacement], axis=0)).max() <= 3


@pytest.mark.parametrize(("right", "down"), [(16, 0), (0, -15), (14, 14)])
def test_beyond_the_limit_the_region_stays_and_the_part_is_too_far(
    following: Preprocess, right: int, down: int
) -> None:
    place = following.locate(plate(900, right, down))
    assert place.region == REGION
    assert place.too_far


def test_a_frame_without_a_part_moves_nothing(following: Preprocess) -> None:
    empty = np.full((FRAME_PX, FRAME_PX, 3), (52, 60, 58), np.uint8)
    assert following.locate(noisier(empty)) == (REGION, None, False)
    assert following.locate(empty) == (REGION, None, False)


@pytest.mark.slow
def test_the_region_is_not_moved_if_good_parts_share_no_fixed_structure() -> None:
    noise = [np.random.default_rng(number).integers(0, 256, (160, 160, 3), np.uint8) for number in range(40)]
    clouds: list[Image] = [np.asarray(cv2.GaussianBlur(each, (0, 0), 3), np.uint8) for each in noise]
    grain: list[Image] = [
        np.random.default_rng(number).integers(80, 100, (160, 160, 3), np.uint8) for number in range(12)
    ]
    for pictures in (clouds, grain):
        preprocess = preprocess_from(pictures)
        assert [preprocess.locate(frame) for frame in pictures] == [(REGION, None, False)] * len(pictures)


@pytest.mark.parametrize("sequential", [False, True])
def test_plain_images_give_no_reference_to_align_by(*, sequential: bool) -> None:
    plain = Drawn([np.full((160, 160, 3), level, np.uint8) for level in range(60, 80)], sequential=sequential)
    preprocess = learn_preprocess(plain, PLAIN, PreprocessRequest(LIMIT_PX), lambda *_: None)
    assert preprocess.locate(plate(1)).region == REGION


def test_the_whole_frame_is_aligned_too_and_its_border_repeated() -> None:
    preprocess = preprocess_from(displaced(40, 6), plain=Preprocess(64, 64))
    frame = plate(900, 5, 0)
    right, down = preprocess.locate(frame).displacement or (0, 0)
    assert (right, down) == pytest.approx((5, 0), abs=2)
    padded = np.pad(frame, ((20, 20), (20, 20), (0, 0)), "edge")
    there = padded[20 + down : 180 + down, 20 + right : 180 + right]
    np.testing.assert_array_equal(preprocess(frame), preprocess.resize(there))


def test_frames_of_another_size_are_refused(following: Preprocess) -> None:
    with pytest.raises(DatasetError, match=r"200x160 pixels, but calibration used frames of 160x160"):
        following(np.zeros((160, 200, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"washer 3: the frame has 160x150"):
        preprocess_from([*displaced(3, 2), plate(0)[:150]])


@pytest.mark.parametrize("limit_px", [29, 500])
def test_a_limit_beyond_a_quarter_of_the_region_is_refused(limit_px: int) -> None:
    with pytest.raises(SettingError, match=rf"(?s)--align {limit_px} makes no sense.*at most 28 pixels"):
        preprocess_from(displaced(4, 2), limit_px)


def test_auto_sets_the_limit_to_a_twentieth_of_the_shorter_side() -> None:
    alignment = preprocess_from(displaced(10, 2), AUTO_PX).alignment
    assert alignment is not None
    assert alignment.limit_px == 6


def test_memory_does_not_grow_with_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.workstation.fit.registration._WINDOWS_KEPT", 16)
    counts: list[int] = []

    def counted(windows: Sequence[Image], *_: object, **__: object) -> Alignment:
        counts.append(len(windows))
        return Alignment(np.zeros((4, 4, 2), np.float32), LIMIT_PX, np.inf)

    monkeypatch.setattr("calibration.workstation.fit.registration.learn_alignment", counted)
    preprocess_from([plate(0)] * 100)
    assert counts
    assert max(counts) <= 16


@pytest.mark.slow
def test_a_bundle_preprocesses_as_calibration_did(aligned: Bundle) -> None:
    calibrated = preprocess_from(displaced(40, 8))
    again = open_bundle(aligned.path).preprocess
    for frame in displaced(10, 14, seed=9, first=500):
        assert again.locate(frame) == calibrated.locate(frame)
        np.testing.assert_array_equal(again(frame), calibrated(frame))


def test_the_manifest_records_how_far_good_parts_were_displaced(aligned: Bundle) -> None:
    record = aligned.manifest.preprocess.alignment
    assert record is not None
    assert (record.limit_px, record.followed + record.too_far, record.not_found) == (LIMIT_PX, 40, 0)
    assert record.median_px is not None
    assert record.p99_px is not None
    assert 3 <= record.median_px <= record.p99_px <= LIMIT_PX


def test_the_report_shows_how_far_good_parts_were_displaced(aligned: Bundle) -> None:
    page = report_page(aligned, [GoldenCheck(100.0, 100.0)], Latency(2.5, 100, "cpu", "cpu"))
    assert "the region follows the part by up to 10 pixels; good parts were off by" in page
    assert "of 40 good images 0 not found" in page


def test_alignment_separates_scratched_plates_from_displaced_ones(aligned: Bundle, tmp_path: Path) -> None:
    pictures = Drawn(displaced(40, 8))
    plain = calibrate(
        pictures, filterbank_backbone(64, 64), Settings(PLAIN, threads=1), tmp_path / "plain", lambda *_: None
    )
    gaps = []
    for bundle in (plain, aligned):
        with OnnxRuntimeEngine(bundle.network, 1) as engine:
            good = [engine(bundle.preprocess(frame)).score for frame in displaced(20, 8, seed=3, first=300)]
            bad = [
                engine(bundle.preprocess(plate(400 + number, number - 5, 5 - number, scratched=True))).score
                for number in range(10)
            ]
        gaps.append(np.median(bad) / np.median(good))
        if bundle is aligned:
            assert min(bad) > max(good)
    assert gaps[1] > 2 * gaps[0]


def test_older_bundles_still_open(learnt: Bundle) -> None:
    record = learnt.manifest.preprocess
    assert (record.alignment, record.ignored, record.frame_size) == (None, None, None)
    assert learnt.preprocess == Preprocess(64, 64)


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "far", ""])
def test_the_command_refuses_an_invalid_displacement(
    command: Command, good_folder: Path, tmp_path: Path, text: str
) -> None:
    outcome = command("fit", good_folder, "--out", tmp_path / "b", "--size", "64", f"--align={text}")
    assert_refused(outcome, f"--align {text} is not a number of pixels", "whole number above 0")


def test_the_command_prints_the_alignment(command: Command, good_folder: Path, tmp_path: Path) -> None:
    outcome = command("fit", good_folder, "--out", tmp_path / "b", "--size", "64", "--align", "auto")
    assert outcome.code == 0
    assert "alignment the region follows the part by up to 3 pixels" in outcome.words
    assert Region(0, 0, 64, 64) == open_bundle(tmp_path / "b").preprocess.locate(np.zeros((64, 64, 3), np.uint8)).region
