"""Calibration from end to end, on images drawn here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import open_bundle
from calibration.detectors import fold_moments
from calibration.detectors.cross_validation import FOLDS, make_folds
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import (
    BundleError,
    DatasetError,
    DegenerateFeaturesError,
    ModelTooLargeError,
    SettingError,
)
from calibration.imaging.preprocess import Preprocess, Region
from calibration.imaging.synthetic_defects import with_defect
from calibration.network.fusion import feature_network
from calibration.statistics.moments import Moments
from calibration.workstation.dataset import good_images
from calibration.workstation.fit import defects
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import PreprocessRequest, Settings
from tests.support.washers import SIDE, Drawn, save, washer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import Detector
    from calibration.imaging.preprocess import Image
    from calibration.workstation.dataset import Images, NamedImage

SETTINGS = Settings(Preprocess(SIDE, SIDE), threads=1)


@pytest.fixture
def fit(tmp_path: Path, small_filterbank: Backbone) -> Fit:
    return Fit(tmp_path / "out", small_filterbank)


class Fit:
    """Calibrates into a folder of its own, and remembers the progress."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder = folder
        self.steps: list[tuple[str, int, int]] = []
        self._backbone = backbone

    def __call__(self, images: Images, settings: Settings = SETTINGS, name: str = "bundle") -> Bundle:
        return calibrate(images, self._backbone, settings, self.folder / name, lambda *step: self.steps.append(step))

    def left(self) -> list[Path]:
        """What lies in the folder."""
        return sorted(self.folder.rglob("*"))


class Untouchable(Drawn):
    def __iter__(self) -> Iterator[NamedImage]:
        pytest.fail("an image was read")


def test_good_washers_pass_and_scratched_ones_do_not(learnt: Bundle) -> None:
    threshold = learnt.manifest.working_point.threshold
    with OnnxRuntimeEngine(learnt.network, 1) as engine:
        good = [engine(washer(number)).score for number in range(300, 320)]
        scratched = [engine(washer(number, scratched=True)).score for number in range(400, 420)]
    assert np.mean(np.array(good) > threshold) <= 0.1
    assert min(scratched) > threshold


def test_defects_are_drawn_in_the_frame_where_the_part_is_inspected(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the region, moved with the part and beyond the frame, and in nothing that is ignored."""
    seen = []

    def watched(pixels: Image, number: int, random: np.random.Generator, other: Image, inspected: Any) -> Image:  # noqa: ANN401
        drawn = with_defect(pixels, number, random, other=other, inspected=inspected)
        seen.append((pixels.shape, inspected, (drawn != pixels).any(axis=2)))
        return drawn

    monkeypatch.setattr(defects, "with_defect", watched)
    ignored = Region(2, 3, 30, 57)
    learn = PreprocessRequest(align_px=4, ignored=[ignored])
    settings = replace(SETTINGS, preprocess=Preprocess(SIDE, SIDE, Region(2, 3, 60, 57)), learn=learn)
    bundle = fit(Drawn([washer(number) for number in range(12)]), settings)
    assert len(seen) == 40
    assert {shape[:2] for shape, *_ in seen} == {(57, 60)}
    for _, inspected, changed in seen:
        rows, columns = np.nonzero(changed)
        assert inspected[(rows.min() + rows.max()) // 2, min(59, columns.max())]
        assert not inspected[:, :25].any()
    assert bundle.reference()["defect_px"].max() == round(57 / 4)


@pytest.mark.parametrize("detector", [Padim(dimensions=20), Gaussian(), PatchCore(), MeanShift(modes=2)], ids=str)
def test_every_detector_has_a_forecast(detector: Detector, fit: Fit) -> None:
    pictures = [washer(number) for number in range(20)]
    bundle = fit(Drawn(pictures), replace(SETTINGS, detector=detector, augment=1))
    scores = bundle.reference()["defect_scores"]
    assert len(scores) == 40
    assert np.isfinite(scores).all()
    assert np.median(scores) > np.median(bundle.reference()["good_scores"])


def test_larger_defects_are_found_more_often_and_all_at_a_quarter_of_the_side(fit: Fit) -> None:
    forecast = fit(Drawn([washer(number) for number in range(60)]), replace(SETTINGS, false_reject_rate=0.05)).forecast
    assert forecast is not None
    shares = [forecast.found(sizes=[size]) for size in forecast.sizes]
    assert shares[-1] >= 0.7
    assert shares[0] <= shares[-1] - 0.3


def test_the_manifest_says_what_was_done(learnt: Bundle) -> None:
    manifest = learnt.manifest
    assert manifest.images.count == 24
    assert manifest.images.source == "drawn"
    assert (manifest.backbone.name, manifest.backbone.channels, manifest.backbone.grid) == ("filterbank", 79, (4, 4))
    assert manifest.detector.name == "mean_shift"
    parameters = manifest.detector.parameters
    assert (parameters["alpha"], parameters["averaging"], parameters["location"]) == (0.3, 2, "local")
    assert manifest.working_point.folds == 24
    assert manifest.working_point.method == "log-normal"
    assert manifest.working_point.false_reject_rate == 0.01
    assert {"python", "shiftwatch", "numpy", "onnx", "onnxruntime"} == set(manifest.software)
    assert learnt.preprocess == Preprocess(SIDE, SIDE)


def test_progress_is_reported_for_every_image_and_every_fold(fit: Fit) -> None:
    fit(Drawn([washer(number) for number in range(10)]))
    assert fit.steps == [
        *(("learning", done, 10) for done in range(1, 11)),
        *(("drawing", done, 10) for done in range(1, 11)),
        *(("validating", done, FOLDS) for done in range(1, FOLDS + 1)),
    ]


def test_two_runs_give_the_same_files_to_the_byte(fit: Fit, good_washers: list[Image]) -> None:
    one, other = fit(Drawn(good_washers), name="one"), fit(Drawn(good_washers), name="other")
    assert one.manifest.files == other.manifest.files


def test_the_head_follows_from_the_moments_in_the_bundle(learnt: Bundle) -> None:
    head = MeanShift().head(Moments.unpacked(learnt.moments()))
    network = onnx.load(learnt.network)
    arrays = {each.name: numpy_helper.to_array(each) for each in network.graph.initializer}
    np.testing.assert_array_equal(arrays["head.mean"][:, 0], head.mean)
    np.testing.assert_array_equal(arrays["head.whitening"].transpose(0, 2, 1), head.whitening)


@pytest.mark.parametrize("sequential", [False, True])
def test_every_good_score_is_of_statistics_that_have_not_seen_the_image(
    fit: Fit, small_filterbank: Backbone, good_washers: list[Image], *, sequential: bool
) -> None:
    bundle = fit(Drawn(good_washers, sequential=sequential))
    detector = MeanShift()
    assert SETTINGS.detector == detector
    network = feature_network(small_filterbank, detector, divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        reduced = np.stack([engine.reduced(picture) for picture in good_washers])
    scores = bundle.reference()["good_scores"]
    count = len(good_washers)
    parts = make_folds(count, sequential=True).groups if sequential else [[number] for number in range(count)]
    for part in parts:
        head = detector.head(Moments.of(fold_moments.by_location(np.delete(reduced, part, axis=0))))
        # Left out alone, an image is compared by a pooled covariance without its whole fold.
        np.testing.assert_allclose(scores[part], head.scores(reduced[part]).score, rtol=1e-4 if sequential else 0.3)


@pytest.mark.parametrize("count", [10, 11, 24, 103])
def test_folds_hold_out_each_image_once(count: int) -> None:
    for sequential in (False, True):
        folds = make_folds(count, sequential=sequential)
        assert folds.images == list(range(count))
        assert {len(part) for part in folds.groups} <= {count // FOLDS, count // FOLDS + 1}
        for part, others in zip(folds.groups, folds.complements(), strict=True):
            assert sorted([*part, *others]) == list(range(count))


def test_folds_of_a_video_are_stretches_of_it() -> None:
    for fold in make_folds(103, sequential=True).groups:
        assert fold == list(range(fold[0], fold[-1] + 1))
    assert any(fold != list(range(fold[0], fold[-1] + 1)) for fold in make_folds(103, sequential=False).groups)


def test_frames_of_a_video_are_not_scored_by_their_neighbours(fit: Fit) -> None:
    """Every ten frames the batch mark moves: only where stretches are held out do the scores show it."""
    frames = [washer(number) for number in range(50)]
    for number, frame in enumerate(frames):
        place = 10 * (number // 10)
        frame[place : place + 10, place : place + 10] = (0, 0, 255)
    stretches, samples = (
        fit(Drawn(frames, sequential=sequential), name=str(sequential)).reference()["good_scores"]
        for sequential in (True, False)
    )
    assert np.median(stretches) > 2 * np.median(samples)


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, detector=MeanShift(location="shared")),
        replace(SETTINGS, detector=MeanShift(alpha=1.0, averaging=1)),
        replace(SETTINGS, detector=MeanShift(averaging=4)),
        replace(SETTINGS, divide_brightness=True),
        replace(SETTINGS, preprocess=Preprocess(SIDE, SIDE, Region(4, 6, 50, 48))),
    ],
    ids=["shared", "alpha 1", "one cell left", "brightness divided", "region"],
)
def test_every_kind_of_detector_sees_the_scratch(fit: Fit, settings: Settings) -> None:
    bundle = fit(Drawn([washer(number) for number in range(40)]), settings)
    again = open_bundle(bundle.path)
    with OnnxRuntimeEngine(again.network, 1) as engine:
        scratched = [engine(again.preprocess(washer(number, scratched=True))).score for number in range(200, 205)]
        good = [engine(again.preprocess(washer(number))).score for number in range(100, 105)]
    assert min(scratched) > max(good)
    assert again.preprocess == settings.preprocess


def test_a_black_and_white_camera_can_be_calibrated(fit: Fit) -> None:
    grey = [np.repeat(washer(number)[..., :1], 3, axis=2) for number in range(12)]
    assert np.isfinite(fit(Drawn(grey)).manifest.working_point.threshold)


def test_all_readable_images_are_counted_and_all_others_named(fit: Fit, tmp_path: Path) -> None:
    folder = save(tmp_path / "pictures", [washer(number) for number in range(12)])
    (folder / "003.png").write_bytes(b"damaged")
    (folder / "007.png").write_bytes(b"")
    images = fit(good_images(folder)).manifest.images
    assert images.count == 10
    assert ["003.png" in images.skipped[0], "007.png" in images.skipped[1]] == [True, True]
    assert len(images.skipped) == 2


def test_copies_of_one_image_are_refused(fit: Fit) -> None:
    with pytest.raises(DegenerateFeaturesError, match=r"(?s)features of all images are the same.*different good parts"):
        fit(Drawn([washer(0)] * 12))
    assert fit.left() == []


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_images_are_refused(fit: Fit, count: int) -> None:
    with pytest.raises(DatasetError, match=rf"(?s)only {count} usable images in drawn.*at least 10"):
        fit(Drawn([washer(number) for number in range(count)]))
    assert fit.left() == []


def test_too_few_readable_images_are_refused_with_the_reasons(fit: Fit, tmp_path: Path) -> None:
    folder = save(tmp_path / "pictures", [washer(number) for number in range(12)])
    for name in ("003.png", "007.png", "011.png"):
        (folder / name).write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"only 9 usable .* \(3 were not readable: .*003\.png"):
        fit(good_images(folder))


def test_what_does_not_fit_into_memory_is_refused_with_both_figures_before_any_work(fit: Fit) -> None:
    images = Untouchable([washer(0)])
    with pytest.raises(ModelTooLargeError, match=r"3x3 locations of 79 channels need 5 MiB.*\n?.*limit is 2 MiB"):
        fit(images, replace(SETTINGS, memory_limit_mib=2))
    assert fit.left() == []


def test_shared_statistics_need_less_memory(fit: Fit) -> None:
    settings = replace(SETTINGS, memory_limit_mib=2, detector=MeanShift(location="shared"))
    manifest = fit(Drawn([washer(number) for number in range(10)]), settings).manifest
    assert manifest.detector.parameters["location"] == "shared"


def test_an_averaging_region_larger_than_the_grid_is_refused_before_any_work(fit: Fit) -> None:
    with pytest.raises(SettingError, match=r"(?s)5 cells is larger than the 4x4 grid.*--averaging 4"):
        fit(Untouchable([washer(0)]), replace(SETTINGS, detector=MeanShift(averaging=5)))


def test_a_rate_that_makes_no_sense_is_refused_before_any_work(fit: Fit) -> None:
    with pytest.raises(SettingError, match="false-reject rate"):
        fit(Untouchable([washer(0)]), replace(SETTINGS, false_reject_rate=0.0))


def test_an_existing_bundle_is_refused_before_any_work(fit: Fit) -> None:
    (fit.folder / "bundle").mkdir(parents=True)
    with pytest.raises(BundleError, match="already exists"):
        fit(Untouchable([washer(0)]))


def test_a_region_outside_an_image_names_the_image(fit: Fit) -> None:
    pictures = [washer(number) for number in range(12)]
    pictures[7] = pictures[7][:40]
    settings = replace(SETTINGS, preprocess=Preprocess(SIDE, SIDE, Region(0, 0, 64, 50)))
    with pytest.raises(DatasetError, match=r"washer 7: region of interest 0,0,64,50 .* 64x40"):
        fit(Drawn(pictures), settings)
    assert fit.left() == []


@pytest.mark.parametrize("step", ["learning", "validating"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, good_washers: list[Image], step: str) -> None:
    def interrupt(now: str, done: int, _total: int) -> None:
        if (now, done) == (step, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(Drawn(good_washers), filterbank_backbone(SIDE, SIDE), SETTINGS, tmp_path / "bundle", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_features_lie_beside_the_bundle_without_a_name_and_are_gone_afterwards(
    tmp_path: Path, good_washers: list[Image], small_filterbank: Backbone
) -> None:
    seen: list[list[str]] = []
    bundle = calibrate(
        Drawn(good_washers),
        small_filterbank,
        SETTINGS,
        tmp_path / "bundle",
        lambda *_: seen.append([path.name for path in tmp_path.iterdir()]),
    )
    assert all(names == [] for names in seen)
    assert list(tmp_path.iterdir()) == [bundle.path]
