"""Refitting a bundle: what it keeps, what it refuses, and its acceptance test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.bundle.bundle import check_golden
from calibration.bundle.manifest import ForecastRecord
from calibration.deployment.latency import measure_latency
from calibration.detectors.gaussian import Gaussian
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError, SettingError
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import without_head
from calibration.update.acceptance import AcceptanceResult, acceptance_failures, check_acceptance
from calibration.update.marked_defects import score_marked
from calibration.update.part_store import PartStore
from calibration.update.refit import RefitPlan, refit_bundle, refuse_invalid_plan
from calibration.update.refit_statistics import _refuse_same_defect
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.report.report import report_page
from calibration.workstation.settings import Settings
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.update.refit import Mode, RefitResult

    Refitter = Callable[..., RefitResult]

PARTS = 40


def quiet(*_: object) -> None:
    """Report no progress."""


def relit(picture: Image) -> Image:
    """A brighter lamp and a softer lens."""
    soft = cv2.GaussianBlur(picture, (0, 0), 0.7).astype(np.float32)
    return np.asarray(np.clip(soft * 1.15 + 5, 0, 255), np.uint8)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, small_filterbank: Backbone) -> Bundle:
    pictures = Drawn([washer(number) for number in range(60)])
    settings = Settings(Preprocess(SIDE, SIDE), threads=1, false_reject_rate=0.05)
    return calibrate(pictures, small_filterbank, settings, tmp_path_factory.mktemp("old") / "old", quiet)


@pytest.fixture
def refit(old: Bundle, tmp_path: Path) -> Iterator[Refitter]:
    """Refits the old bundle on images."""
    with OnnxRuntimeEngine(without_head(old.network.read_bytes()), 1) as engine:

        def run(pictures: Sequence[Image], plan: RefitPlan, name: str = "new") -> RefitResult:
            with PartStore(tmp_path / "collected", engine) as collection:
                for number, picture in enumerate(pictures):
                    collection.add(f"part {number}", old.preprocess(picture))
                return refit_bundle(old, collection, plan, tmp_path / name, quiet)

        yield run


def score_of(bundle: Bundle, picture: Image) -> float:
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        return engine(bundle.preprocess(picture)).score


def rejected(bundle: Bundle, pictures: Sequence[Image]) -> float:
    """Share above the threshold."""
    scores = [score_of(bundle, picture) for picture in pictures]
    return float(np.mean(np.array(scores) > bundle.manifest.working_point.threshold))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mean", "full", "teach"])
def test_parts_in_another_light_are_good_again_and_scratches_are_still_found(
    refit: Refitter, old: Bundle, mode: Mode
) -> None:
    plan = RefitPlan(mode, sequential=False)
    bundle = refit([relit(washer(number)) for number in range(100, 100 + PARTS)], plan).bundle
    later = [relit(washer(number)) for number in range(200, 230)]
    assert rejected(old, later) > 0.9
    assert rejected(bundle, later) < 0.3
    assert rejected(bundle, [relit(washer(number, scratched=True)) for number in range(230, 240)]) == 1.0
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        check_golden(bundle, engine)


@pytest.mark.slow
def test_old_good_parts_stay_good_unless_they_are_forgotten(refit: Refitter) -> None:
    new = [relit(washer(number)) for number in range(100, 100 + PARTS)]
    before = [washer(number) for number in range(60)]
    kept = refit([*new, *before], RefitPlan("full", sequential=False), "kept").bundle
    forgot = refit(new, RefitPlan("full", old_weight=0.0, sequential=False), "forgot").bundle
    assert rejected(kept, before) < 0.2
    assert rejected(forgot, before) > 0.9


def test_outliers_are_left_out_and_named(refit: Refitter) -> None:
    parts = [washer(number) for number in range(100, 100 + PARTS)]
    parts[7], parts[23] = washer(107, scratched=True), washer(123, scratched=True)
    result = refit(parts, RefitPlan("full", sequential=False))
    assert {"part 7", "part 23"} <= set(result.left_out)
    assert len(result.left_out) <= 6
    assert result.bundle.manifest.images.left_out == result.left_out
    assert result.bundle.manifest.images.count == PARTS - len(result.left_out)


def test_the_manifest_records_the_refit(refit: Refitter, old: Bundle) -> None:
    bundle = refit([washer(number) for number in range(100, 100 + PARTS)], RefitPlan("full", old_weight=1.5)).bundle
    record = bundle.manifest.relearning
    assert record is not None
    assert (record.mode, record.parent, record.parts, record.old_weight) == ("full", old.identity, PARTS, 1.5)
    assert bundle.manifest.effective_images == pytest.approx(
        (1.5 * 60 + bundle.manifest.images.count) ** 2 / (1.5**2 * 60 + bundle.manifest.images.count)
    )
    assert len(bundle.reference()["good_scores"]) == len(bundle.reference()["brightness"])


def test_the_mode_threshold_changes_nothing_else(refit: Refitter, old: Bundle) -> None:
    bundle = refit([washer(number) for number in range(100, 100 + PARTS)], RefitPlan("threshold")).bundle
    assert bundle.network.read_bytes() == old.network.read_bytes()
    assert bundle.manifest.files["moments.npz"] == old.manifest.files["moments.npz"]
    assert bundle.manifest.working_point.threshold != old.manifest.working_point.threshold


def test_another_product_is_refused_but_can_be_taught(refit: Refitter) -> None:
    random = np.random.default_rng(0)
    squares = [np.full((SIDE, SIDE, 3), 30, np.uint8) for _ in range(PARTS)]
    for number, square in enumerate(squares):
        cv2.rectangle(square, (5 + number % 3, 5), (50, 58), (200, 90, 20), -1)
        square[::4] = 250
        np.add(square, random.integers(0, 5, square.shape, np.uint8), out=square)
    with pytest.raises(DatasetError, match="another product"):
        refit(squares, RefitPlan("full"))
    with pytest.raises(DatasetError, match="not made for these parts"):
        refit(squares, RefitPlan("threshold"))
    taught = refit(squares, RefitPlan("teach"), "taught").bundle
    assert rejected(taught, squares[:10]) < 0.5
    assert rejected(taught, [washer(1)]) == 1.0


def test_a_location_where_most_parts_differ_is_named() -> None:
    typical = np.full((4, 5), 10.0, np.float32)
    _refuse_same_defect(typical)
    typical[1, 4] = 60.0
    with pytest.raises(DatasetError, match=r"as if all had the same defect: 90% from the left and 38% from the top"):
        _refuse_same_defect(typical)


@pytest.mark.parametrize("mode", ["mean", "full"])
def test_parts_that_are_all_scratched_are_refused(refit: Refitter, mode: Mode) -> None:
    scratched = [relit(washer(number, scratched=True)) for number in range(100, 100 + PARTS)]
    with pytest.raises(DatasetError, match="by more than another light"):
        refit(scratched, RefitPlan(mode))


def test_a_production_line_that_stands_still_is_refused(refit: Refitter) -> None:
    random = np.random.default_rng(0)
    still = [np.clip(washer(100) + random.normal(0, 0.3, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8) for _ in range(20)]
    with pytest.raises(DatasetError, match="hardly differ"):
        refit(still, RefitPlan("full"))


@pytest.mark.parametrize(
    ("plan", "parts", "reason"),
    [
        (RefitPlan(), 5, "too few"),
        (RefitPlan(false_reject_rate=0.001), 20, "false-reject rate"),
        (RefitPlan(old_weight=-1.0), 40, "cannot count"),
    ],
)
def test_an_invalid_plan_is_refused_before_parts_are_collected(
    old: Bundle, plan: RefitPlan, parts: int, reason: str
) -> None:
    with pytest.raises(SettingError, match=reason):
        refuse_invalid_plan(old, plan, parts)


def test_a_detector_without_moments_can_only_have_another_threshold(tmp_path: Path, small_filterbank: Backbone) -> None:
    pictures = Drawn([washer(number) for number in range(30)])
    settings = Settings(Preprocess(SIDE, SIDE), Gaussian(), threads=1, false_reject_rate=0.05)
    bundle = calibrate(pictures, small_filterbank, settings, tmp_path / "gaussian", quiet)
    with pytest.raises(SettingError, match="gaussian"):
        refuse_invalid_plan(bundle, RefitPlan("full"), 40)
    refuse_invalid_plan(bundle, RefitPlan("threshold"), 40)


def test_a_threshold_by_chi_square_stays_one(old: Bundle, tmp_path: Path) -> None:
    point = old.manifest.working_point.model_copy(update={"method": "chi-square"})
    by_law = replace(old, manifest=old.manifest.model_copy(update={"working_point": point}))
    with pytest.raises(SettingError, match="follows from chi-square"):
        refuse_invalid_plan(by_law, RefitPlan("threshold"), 40)
    with (
        OnnxRuntimeEngine(without_head(old.network.read_bytes()), 1) as engine,
        PartStore(tmp_path / "collected", engine) as collection,
    ):
        for number in range(100, 120):
            collection.add(f"part {number}", old.preprocess(washer(number)))
        new = refit_bundle(by_law, collection, RefitPlan("mean"), tmp_path / "new", quiet).bundle
    refitted = new.manifest.working_point
    assert (refitted.method, refitted.threshold) == ("chi-square", refitted.chi_square)
    assert new.forecast is not None
    assert new.forecast.point.threshold == refitted.threshold


@pytest.mark.slow
def test_a_good_refit_is_accepted(old: Bundle, tmp_path: Path) -> None:
    with (
        OnnxRuntimeEngine(without_head(old.network.read_bytes()), 1) as engine,
        PartStore(tmp_path / "collected", engine) as collection,
    ):
        for number in range(100, 100 + PARTS):
            collection.add(f"part {number}", old.preprocess(relit(washer(number))))
        new = refit_bundle(old, collection, RefitPlan(sequential=False), tmp_path / "new", quiet).bundle
        scratched = [old.preprocess(relit(washer(number, scratched=True))) for number in range(5)]
        before, now = (score_marked(each, scratched, each.manifest.working_point.threshold, 1) for each in (old, new))
        acceptance = check_acceptance(old, new, (before, now), 1)
    assert (acceptance.defects, acceptance.defects_old, acceptance.defects_new) == (5, 5, 5)
    assert acceptance_failures(acceptance, 0.8, 0.0) == []


FORECAST = ForecastRecord(drawn=40, found=0.85, largest_found=0.9, largest_px=56, smallest_px=50.0)


def test_a_refit_that_would_miss_defects_is_not_accepted() -> None:
    good = AcceptanceResult(0.01, 0.9, FORECAST, 10, 10, 10)
    assert acceptance_failures(good, 0.8, 0.3) == []
    worse = FORECAST.model_copy(update={"found": 0.5})
    assert len(acceptance_failures(replace(good, forecast=worse, defects_new=7), 0.8, 0.3)) == 2


def test_a_blind_refit_is_not_accepted_though_it_finds_more_than_the_old_bundle() -> None:
    blind = FORECAST.model_copy(update={"found": 0.17, "largest_found": 0.25})
    result = AcceptanceResult(0.01, 0.14, blind, 0, 0, 0)
    (failure,) = acceptance_failures(result, 0.8, 0.3)
    assert failure == (
        "it finds 25% of the largest synthetic defects, of 56 pixels; recalibration.least_detection asks for 30%"
    )
    assert acceptance_failures(result, 0.8, 0.25) == []


@pytest.mark.parametrize("mode", ["threshold", "mean", "full", "teach"])
def test_a_refitted_bundle_says_what_it_will_find_in_the_parts(refit: Refitter, mode: Mode) -> None:
    """Scored by statistics without the part; by the network, where it stays as it is."""
    pictures = [washer(number) for number in range(100, 100 + PARTS)]
    new = refit(pictures, RefitPlan(mode, sequential=False, false_reject_rate=0.05)).bundle
    record, forecast, reference = new.manifest.forecast, new.forecast, new.reference()
    assert record is not None
    assert forecast is not None
    assert (record.drawn, len(forecast.scores), record.largest_px) == (120, 120, SIDE // 4)
    assert record.found == forecast.found()
    assert np.isfinite(forecast.scores).all()
    assert np.median(forecast.scores) > np.median(reference["good_scores"])


@pytest.mark.slow
def test_defects_in_parts_are_as_large_as_in_the_frame(tmp_path: Path, small_filterbank: Backbone) -> None:
    """The network sees a quarter of the frame's pixels; scores are alike, drawn into the frame or into its input."""
    pictures = [washer(number, side=2 * SIDE) for number in range(60)]
    settings = Settings(Preprocess(SIDE, SIDE), threads=1, false_reject_rate=0.05)
    fitted = calibrate(Drawn(pictures), small_filterbank, settings, tmp_path / "fitted", quiet)
    with (
        OnnxRuntimeEngine(without_head(fitted.network.read_bytes()), 1) as engine,
        PartStore(tmp_path / "parts", engine) as collection,
    ):
        for number, picture in enumerate(pictures):
            collection.add(f"part {number}", fitted.preprocess(picture))
        taught = refit_bundle(fitted, collection, RefitPlan("teach"), tmp_path / "taught", quiet).bundle
    in_frame, in_input = fitted.reference(), taught.reference()
    drawn = len(in_frame["defect_px"])
    assert in_input["defect_px"][:drawn].tolist() == in_frame["defect_px"].tolist()
    assert in_input["defect_px"].max() == SIDE // 2
    ranks = [np.argsort(np.argsort(each["defect_scores"][:drawn])) for each in (in_frame, in_input)]
    assert float(np.corrcoef(np.stack(ranks)).min()) > 0.7


@pytest.mark.slow
def test_a_refitted_bundle_has_a_report_and_can_be_refitted_again(refit: Refitter, old: Bundle, tmp_path: Path) -> None:
    first = refit([relit(washer(number)) for number in range(100, 100 + PARTS)], RefitPlan(sequential=False)).bundle
    with OnnxRuntimeEngine(first.network, 1) as engine:
        page = report_page(first, check_golden(first, engine), measure_latency(first, engine))
    assert "parts seen by the device, mode full" in page
    with (
        OnnxRuntimeEngine(without_head(first.network.read_bytes()), 1) as engine,
        PartStore(tmp_path / "again", engine) as collection,
    ):
        for number in range(200, 200 + PARTS):
            collection.add(f"part {number}", old.preprocess(washer(number)))
        second = refit_bundle(first, collection, RefitPlan(sequential=False), tmp_path / "second", quiet).bundle
    record = second.manifest.relearning
    assert record is not None
    assert record.parent == first.identity
    assert rejected(second, [washer(number) for number in range(300, 330)]) < 0.3
