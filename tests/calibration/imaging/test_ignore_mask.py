"""Areas that are not inspected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import GoldenCheck, open_bundle
from calibration.deployment.latency import Latency
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.imaging.ignore_mask import label_areas
from calibration.imaging.preprocess import Preprocess, Region, crop
from calibration.workstation.fit.learn_preprocess import learn_preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.report.report import report_page
from calibration.workstation.settings import PreprocessRequest, Settings
from tests.support.outcome import assert_refused
from tests.support.plates import FRAME_PX, LABEL, REGION, displaced, plate
from tests.support.washers import Drawn, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import Detector
    from calibration.imaging.preprocess import Image
    from calibration.workstation.settings import Area
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

PLAIN = Preprocess(64, 64, REGION)
LIMIT_PX = 8


def ignoring(*areas: Area, plain: Preprocess = PLAIN) -> Preprocess:
    return learn_preprocess(
        Drawn([plate(number, code=True) for number in range(6)]), plain, PreprocessRequest(None, areas), lambda *_: None
    )


def fitted(path: Path, wanted: PreprocessRequest, pictures: list[Image], detector: Detector) -> Bundle:
    settings = Settings(PLAIN, detector, threads=1)
    settings = replace(settings, preprocess=learn_preprocess(Drawn(pictures), PLAIN, wanted, lambda *_: None))
    return calibrate(Drawn(pictures), filterbank_backbone(64, 64), settings, path, lambda *_: None)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of displaced plates with an ignored code."""
    pictures = displaced(40, 6, code=True)
    return fitted(
        tmp_path_factory.mktemp("masked") / "plates", PreprocessRequest(LIMIT_PX, [LABEL]), pictures, MeanShift()
    )


def blotted(frame: Image, right: int = 0, down: int = 0, area: Region = LABEL) -> Image:
    """The frame with a defect that fills an area."""
    spoiled: Image = frame.copy()
    crop(spoiled, area.moved(right, down))[4:-4, 4:-4] = (10, 10, 250)
    return spoiled


def scores(bundle: Bundle, *frames: Image) -> list[float]:
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        return [engine(bundle.preprocess(frame)).score for frame in frames]


@pytest.mark.slow
@pytest.mark.parametrize(("right", "down"), [(0, 0), (5, -4), (-6, 6)])
def test_a_defect_inside_does_not_change_the_score_and_one_outside_does(masked: Bundle, right: int, down: int) -> None:
    frame = plate(700, right, down, code=True)
    outside = blotted(frame, right, down, Region(96, 80, 24, 24))
    plain, inside, beside = scores(masked, frame, blotted(frame, right, down), outside)
    assert inside == pytest.approx(plain, rel=0.02)
    assert beside > 3 * plain
    assert beside > masked.manifest.working_point.threshold > plain


@pytest.mark.slow
@pytest.mark.parametrize("detector", [MeanShift(), MeanShift(location="shared"), Padim(), Gaussian(), PatchCore()])
def test_ignored_areas_do_not_affect_the_score_of_any_detector(tmp_path: Path, detector: Detector) -> None:
    pictures = [plate(number, code=True) for number in range(40)]
    bundle = fitted(tmp_path / "b", PreprocessRequest(None, [LABEL]), pictures, detector)
    frame = plate(700, code=True)
    plain, inside, beside = scores(bundle, frame, blotted(frame), blotted(frame, area=Region(96, 80, 24, 24)))
    assert inside == pytest.approx(plain, rel=1e-6)
    assert beside > 1.2 * plain


@pytest.mark.slow
def test_the_code_hides_scratches_only_without_the_mask(masked: Bundle, tmp_path: Path) -> None:
    plain = fitted(tmp_path / "b", PreprocessRequest(LIMIT_PX), displaced(40, 6, code=True), MeanShift())
    good = [plate(800 + number, code=True) for number in range(10)]
    scratched = [plate(800 + number, code=True, scratched=True) for number in range(10)]
    gains = [np.median(scores(bundle, *scratched)) / np.median(scores(bundle, *good)) for bundle in (masked, plain)]
    assert gains[0] > gains[1]


def test_an_area_is_painted_in_the_colour_around_it() -> None:
    preprocess = ignoring(LABEL)
    assert preprocess.ignore_mask is not None
    painted = preprocess(plate(1, code=True))
    area = preprocess.ignore_mask.area
    ring = (cv2.dilate(area.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~area
    assert np.ptp(painted[area].reshape(-1, 3), axis=0).tolist() == [0, 0, 0]
    assert np.abs(painted[area].mean(axis=0) - painted[ring].mean(axis=0)).max() < 8
    np.testing.assert_array_equal(painted[~area], PLAIN(plate(1, code=True))[~area])


def test_painting_does_not_change_the_frame() -> None:
    whole = ignoring(LABEL, plain=Preprocess(FRAME_PX, FRAME_PX))
    frame = plate(1, code=True)
    before = frame.copy()
    whole(frame)
    np.testing.assert_array_equal(frame, before)


def test_each_area_has_its_own_colour_and_may_come_from_a_mask() -> None:
    mask = np.zeros((FRAME_PX, FRAME_PX), np.bool_)
    mask[130:134, 26:32] = True  # the belt
    preprocess = ignoring(LABEL, mask)
    assert preprocess.ignore_mask is not None
    label, belt = preprocess.ignore_mask.colours.astype(int)
    np.testing.assert_allclose(belt, (52, 60, 58), atol=8)
    np.testing.assert_allclose(label, (150, 160, 165), atol=8)


@pytest.mark.parametrize("size", [64, 100, 224])
def test_no_ignored_pixel_reaches_the_network_at_any_size(size: int) -> None:
    preprocess = ignoring(LABEL, plain=Preprocess(size, size, REGION))
    white, black = (plate(1) for _ in range(2))
    crop(white, LABEL)[:], crop(black, LABEL)[:] = 255, 0
    np.testing.assert_array_equal(preprocess(white), preprocess(black))


def test_more_areas_than_labels_are_all_ignored() -> None:
    dots = np.zeros((64, 64), np.bool_)
    dots[::2, ::2] = True
    labels = label_areas(dots)
    assert labels.max() == 255
    np.testing.assert_array_equal(labels > 0, dots)


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(SettingError, match=r"the mask of --ignore has 80x90 pixels, the frames have 160x160"):
        ignoring(np.ones((90, 80), np.bool_))


def test_a_mask_that_covers_everything_or_nothing_is_refused() -> None:
    with pytest.raises(SettingError, match="covers everything"):
        ignoring(np.ones((FRAME_PX, FRAME_PX), np.bool_))
    with pytest.raises(SettingError, match="covers everything"):
        ignoring(REGION)
    for nowhere in (np.zeros((FRAME_PX, FRAME_PX), np.bool_), Region(0, 0, 10, 10)):
        with pytest.raises(SettingError, match="covers nothing of the region of interest"):
            ignoring(nowhere)


def test_a_rectangle_outside_the_frame_is_refused() -> None:
    with pytest.raises(SettingError, match=r"--ignore 150,0,20,20 .* does not fit into frames of 160x160"):
        ignoring(Region(150, 0, 20, 20))


@pytest.mark.slow
def test_a_bundle_paints_as_calibration_did(masked: Bundle) -> None:
    record = masked.manifest.preprocess.ignored
    assert record is not None
    assert 0.05 < record.share < 0.12
    learnt = learn_preprocess(
        Drawn(displaced(40, 6, code=True)), PLAIN, PreprocessRequest(LIMIT_PX, [LABEL]), lambda *_: None
    )
    again = open_bundle(masked.path).preprocess
    for frame in displaced(6, 6, seed=8, first=600, code=True):
        np.testing.assert_array_equal(again(frame), learnt(frame))


@pytest.mark.slow
def test_ignored_areas_are_not_used_for_alignment() -> None:
    pictures = displaced(20, 6)
    learnt = learn_preprocess(Drawn(pictures), PLAIN, PreprocessRequest(LIMIT_PX, [LABEL]), lambda *_: None).alignment
    full = learn_preprocess(Drawn(pictures), PLAIN, PreprocessRequest(LIMIT_PX), lambda *_: None).alignment
    assert learnt is not None
    assert full is not None
    under = crop(learnt.reference, LABEL.moved(-REGION.x, -REGION.y))
    assert not under.any()
    assert crop(full.reference, LABEL.moved(-REGION.x, -REGION.y)).any()
    assert learnt.reference.any()


def test_the_report_shows_what_is_ignored(masked: Bundle) -> None:
    page = report_page(masked, [GoldenCheck(100.0, 100.0)], Latency(2.5, 100, "cpu", "cpu"))
    assert "Hatched areas are ignored" in page
    assert "of the region, painted over and never inspected" in page


def test_pixels_under_the_mask_are_neither_good_nor_defective(masked: Bundle) -> None:
    judged = masked.preprocess.inspected_mask(REGION)
    assert judged.shape == (REGION.height, REGION.width)
    inside = crop(judged, LABEL.moved(-REGION.x, -REGION.y))
    assert not inside.any()
    assert judged.mean() > 0.85


def test_the_command_takes_a_mask_and_rectangles(command: Command, tmp_path: Path) -> None:
    folder = save(tmp_path / "good", [plate(number, code=True) for number in range(12)])
    mask = np.zeros((FRAME_PX, FRAME_PX), np.uint8)
    crop(mask, LABEL)[:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    options = ("--size", "64", "--ignore", tmp_path / "mask.png", "--ignore", "0,0,10,10")
    outcome = command("fit", folder, "--out", tmp_path / "b", *options)
    assert outcome.code == 0
    assert "of the region, painted over and never inspected" in outcome.words
    ignored = open_bundle(tmp_path / "b").preprocess.ignore_mask
    assert ignored is not None
    assert len(ignored.colours) == 2
    assert_refused(
        command("fit", folder, "--out", tmp_path / "c", "--ignore", tmp_path / "none.png"), "cannot read", "check"
    )
    assert_refused(command("fit", folder, "--out", tmp_path / "c", "--ignore", "1,2,3"), "--ignore 1,2,3", "X,Y")
