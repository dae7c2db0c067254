"""Fewer than ten images: what PatchCore makes of them, and that nothing is promised anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.doctor.network_probe import _bundle_finding
from calibration.bundle.bundle import open_bundle
from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.update.refit import RefitPlan, _rate
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.outcome import assert_refused
from tests.support.washers import SIDE, Drawn, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_bundle_of_a_few_images_says_that_it_promises_nothing(
    count: int, small_filterbank: Backbone, command: Command, tmp_path: Path
) -> None:
    images = Drawn([washer(number) for number in range(count)])
    settings = Settings(Preprocess(SIDE, SIDE), PatchCore(), threads=1)
    bundle = calibrate(images, small_filterbank, settings, tmp_path / "few", lambda *_: None)
    point, scores = open_bundle(bundle.path).manifest.working_point, bundle.reference()["good_scores"]
    scored = 5 if count == 1 else count  # the image, and varied copies of it
    assert (point.method, point.folds, len(scores)) == ("highest of few", scored, scored)
    assert bundle.manifest.images.count == count
    assert point.threshold == scores.max()
    assert not len(bundle.reference()["suspicious_names"])
    assert point.false_reject_rate == 1 / (count + 1)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        assert engine(washer(100, scratched=True)).score > point.threshold
    assert _rate(bundle, RefitPlan("threshold")) == 0.01
    assert _bundle_finding(bundle).level == "warning"
    assert command("report", bundle.path, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert f"Too few images to promise a false-reject rate ({count})" in page
    assert "expected, not promised" in page


def test_fit_says_so_and_refuses_what_other_methods_cannot_do(command: Command, tmp_path: Path) -> None:
    save(tmp_path / "good", [washer(number) for number in range(4)])
    begin = ("fit", tmp_path / "good", "--size", "64", "--threads", "1")
    outcome = command(*begin, "--detector", "patchcore", "--out", tmp_path / "few")
    assert outcome.code == 0
    assert "too few images for a false-reject rate (4)" in outcome.words
    assert "20.00% expected, not promised" in outcome.words
    assert_refused(command(*begin, "--out", tmp_path / "none"), "only 4 usable images", "at least 10")
