"""A product taught on the weight-free filterbank, from a bundle with another backbone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.bundle.bundle import check_golden
from calibration.deployment.latency import measure_latency
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import ModelTooLargeError, SettingError
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import without_head
from calibration.update.base_network import base_network_of
from calibration.update.merge import merge
from calibration.update.part_store import PartStore
from calibration.update.refit import RefitPlan, refit_bundle, refuse_invalid_plan
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.report.report import report_page
from calibration.workstation.settings import Settings
from tests.support.random_backbone import random_backbone
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.update.refit import Mode

PARTS = 40
TEACH = RefitPlan("teach", backbone="filterbank")
SETTINGS = partial(Settings, Preprocess(SIDE, SIDE), threads=1, false_reject_rate=0.05)


def quiet(*_: object) -> None:
    """Report no progress."""


def fit(backbone: Backbone, settings: Settings, path: Path, pictures: Sequence[Image]) -> Bundle:
    return calibrate(Drawn(pictures, sequential=True), backbone, settings, path, quiet)


def taught(bundle: Bundle, pictures: Sequence[Image], path: Path, plan: RefitPlan = TEACH) -> Bundle:
    network = without_head(base_network_of(bundle, plan.backbone).network)
    with OnnxRuntimeEngine(network, 1) as engine, PartStore(path.parent, engine) as collection:
        for number, picture in enumerate(pictures):
            collection.add(str(number), picture)
        return refit_bundle(bundle, collection, plan, path, quiet).bundle


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of another product, on another backbone."""
    path = tmp_path_factory.mktemp("other") / "other"
    return fit(random_backbone(), SETTINGS(), path, [washer(number, scratched=True) for number in range(20)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS(augment=1),
        SETTINGS(MeanShift(dimensions=10), divide_brightness=True),
        SETTINGS(MeanShift(averaging=1, location="shared", pooling_order=np.inf), divide_brightness=True),
        SETTINGS(MeanShift(location="global", averaging=1)),
        SETTINGS(Padim(9)),
        SETTINGS(Padim(9, smoothing=3)),
    ],
    ids=["local, with copies", "fewer dimensions, brightness divided", "shared", "global", "padim", "padim, smoothed"],
)
def test_teaching_on_the_filterbank_equals_a_calibration_on_the_filterbank(
    settings: Settings, tmp_path: Path, small_filterbank: Backbone
) -> None:
    strangers = [washer(number, scratched=True) for number in range(20)]
    old = fit(random_backbone(), settings, tmp_path / "old", strangers)
    pictures = [washer(number) for number in range(PARTS)]
    new = taught(old, pictures, tmp_path / "new")
    kept = [picture for name, picture in enumerate(pictures) if str(name) not in new.manifest.images.left_out]
    plain = SETTINGS(settings.detector, divide_brightness=settings.divide_brightness)
    fresh = fit(small_filterbank, plain, tmp_path / "fresh", kept)

    for name in ("preprocess", "augment", "backbone", "effective_images", "golden_tolerance"):
        assert getattr(new.manifest, name) == getattr(fresh.manifest, name)
    assert new.manifest.detector.name == fresh.manifest.detector.name
    assert new.manifest.detector.parameters == pytest.approx(fresh.manifest.detector.parameters)
    for name, moment in fresh.moments().items():
        np.testing.assert_allclose(new.moments()[name], moment, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(new.reference()["good_scores"], fresh.reference()["good_scores"], rtol=1e-3)
    assert new.manifest.working_point.threshold == pytest.approx(fresh.manifest.working_point.threshold, rel=1e-3)
    # To the byte what a calibration makes, up to the head: names of nodes tell TensorRT what may be in half precision.
    assert without_head(new.network.read_bytes()) == without_head(fresh.network.read_bytes())
    with OnnxRuntimeEngine(new.network, 1) as ours, OnnxRuntimeEngine(fresh.network, 1) as theirs:
        check_golden(new, ours)
        for picture in (washer(100), washer(101, scratched=True)):
            assert ours(picture).score == pytest.approx(theirs(picture).score, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["threshold", "mean", "full", "teach"])
def test_a_bundle_taught_on_the_filterbank_can_be_refitted(other: Bundle, mode: Mode, tmp_path: Path) -> None:
    first = taught(other, [washer(number) for number in range(PARTS)], tmp_path / "first")
    second = taught(first, [washer(number) for number in range(100, 100 + PARTS)], tmp_path / "second", RefitPlan(mode))
    assert second.manifest.backbone == first.manifest.backbone
    with OnnxRuntimeEngine(second.network, 1) as engine:
        page = report_page(second, check_golden(second, engine), measure_latency(second, engine))
        threshold = second.manifest.working_point.threshold
        assert np.mean([engine(washer(number)).score > threshold for number in range(200, 220)]) < 0.3
        assert all(engine(washer(number, scratched=True)).score > threshold for number in range(220, 230))
    assert "filterbank" in page


@pytest.mark.slow
def test_a_bundle_taught_on_the_filterbank_merges_with_a_calibrated_one(
    other: Bundle, tmp_path: Path, small_filterbank: Backbone
) -> None:
    first = taught(other, [washer(number) for number in range(PARTS)], tmp_path / "first")
    apart = fit(small_filterbank, SETTINGS(), tmp_path / "apart", [washer(number) for number in range(100, 120)])
    both = merge([first, apart], [1.0, 1.0], tmp_path / "both", 1)
    assert both.manifest.effective_images == first.manifest.images.count + 20


def test_a_bundle_of_the_filterbank_keeps_its_own_network(learnt: Bundle) -> None:
    base = base_network_of(learnt, "filterbank")
    assert base == (learnt.network.read_bytes(), learnt.manifest.backbone)
    refuse_invalid_plan(
        learnt, RefitPlan("teach", false_reject_rate=0.05, backbone="filterbank", memory_limit_mib=0.0), PARTS
    )


@pytest.mark.parametrize("mode", ["threshold", "mean", "full"])
def test_another_backbone_is_refused_in_modes_that_keep_the_old_product(other: Bundle, mode: Mode) -> None:
    with pytest.raises(SettingError, match=f"the mode {mode} keeps the backbone") as refused:
        refuse_invalid_plan(other, RefitPlan(mode, backbone="filterbank"), PARTS)
    assert "only the mode teach" in refused.value.remedy


def test_a_network_input_that_the_filterbank_does_not_accept_is_refused(tmp_path: Path) -> None:
    settings = Settings(Preprocess(72, 72), threads=1, false_reject_rate=0.05)
    odd = fit(random_backbone(72), settings, tmp_path / "odd", [washer(number, side=72) for number in range(20)])
    with pytest.raises(SettingError, match=r"odd cannot use the filterbank: .*72x72"):
        refuse_invalid_plan(odd, TEACH, PARTS)
    refuse_invalid_plan(odd, RefitPlan("teach"), PARTS)


def test_an_averaging_region_larger_than_its_grid_is_refused(tmp_path: Path) -> None:
    wide = SETTINGS(MeanShift(averaging=5))
    bundle = fit(random_backbone(), wide, tmp_path / "wide", [washer(number) for number in range(20)])
    with pytest.raises(SettingError, match="averaging region of 5 cells is larger than the 4x4 grid"):
        refuse_invalid_plan(bundle, TEACH, PARTS)


def test_statistics_that_do_not_fit_into_the_memory_are_refused_and_shared_ones_fit(
    other: Bundle, tmp_path: Path
) -> None:
    shared = SETTINGS(MeanShift(location="shared"))
    bundle = fit(random_backbone(), shared, tmp_path / "shared", [washer(number) for number in range(20)])
    little = RefitPlan("teach", backbone="filterbank", memory_limit_mib=3.0)
    with pytest.raises(
        ModelTooLargeError, match="3x3 locations of 79 channels need 6 MiB for their statistics; 3 MiB"
    ) as found:
        refuse_invalid_plan(other, little, PARTS)
    assert "--location shared" in found.value.remedy
    refuse_invalid_plan(bundle, little, PARTS)
