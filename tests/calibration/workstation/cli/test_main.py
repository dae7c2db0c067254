"""The command ``shiftwatch-calibrate``, as a person meets it."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.bundle.bundle import open_bundle
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from tests.support.outcome import assert_refused
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibration.bundle.bundle import Bundle
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

SCRIPT = Path(sys.executable).parent / "shiftwatch-calibrate"


@pytest.mark.slow
def test_fit_writes_a_bundle_and_shows_what_it_learned(command: Command, good_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "washers"
    outcome = command("fit", good_folder, "--out", out, "--size", "64", "--false-reject-rate", "0.05")
    assert outcome.code == 0
    bundle = open_bundle(out)
    for said in ("good images 24", "filterbank", "79 channels on a 4x4 grid", "5.00%", bundle.identity[:16]):
        assert said in outcome.words
    assert bundle.manifest.images.source == str(good_folder)
    assert bundle.manifest.working_point.false_reject_rate == 0.05


def test_all_options_reach_the_bundle(command: Command, good_folder: Path, tmp_path: Path) -> None:
    options = "--frames 2:22 --roi 4,2,56,60 --size 80x64 --divide-brightness --false-reject-rate 0.1"
    more = "--alpha 0.1 --averaging 3 --location shared --threads 1 --memory-limit-mib 100 --detector mean_shift"
    assert command("fit", good_folder, "-o", tmp_path / "b", *options.split(), *more.split()).code == 0
    manifest = open_bundle(tmp_path / "b").manifest
    assert manifest.images.count == 20
    region = manifest.preprocess.region
    assert region is not None
    assert (region.x, region.y, region.width, region.height) == (4, 2, 56, 60)
    assert (manifest.preprocess.height, manifest.preprocess.width) == (80, 64)
    assert manifest.preprocess.divide_brightness
    assert manifest.detector.name == "mean_shift"
    assert manifest.detector.parameters == {
        "alpha": 1.0,
        "averaging": 3,
        "location": "shared",
        "ridge": 1e-3,
        "pooling_order": 8.0,
        "patch": 1,
        "modes": 1,
    }
    assert manifest.backbone.grid == (5, 4)
    assert manifest.working_point.method == "log-normal"


def test_fit_says_that_chi_square_set_the_threshold_and_what_good_images_say_to_it(
    command: Command, good_folder: Path, tmp_path: Path
) -> None:
    options = ["--size", "64", "--threshold-rule", "chi-square", "--false-reject-rate", "0.1"]
    outcome = command("fit", good_folder, "-o", tmp_path / "b", *options)
    assert outcome.code == 0
    bundle = open_bundle(tmp_path / "b")
    point = bundle.manifest.working_point
    above = float((bundle.reference()["good_scores"] > point.threshold).mean())
    assert f"{point.threshold:.6g} (chi-square)" in outcome.words
    assert f"10.00% if features were Gaussian; {above:.2%} of good images are above it" in outcome.words
    assert "whatever these images score" in outcome.words
    assert "for comparison" not in outcome.words
    assert "<- the threshold" in outcome.words


def test_fit_says_what_will_be_found_in_pixels_and_millimetres(
    command: Command, good_folder: Path, tmp_path: Path
) -> None:
    options = ["--size", "64", "--mm-per-pixel", "0.5", "--false-reject-rate", "0.02", "--least-detection", "1"]
    outcome = command("fit", good_folder, "-o", tmp_path / "b", *options)
    bundle = open_bundle(tmp_path / "b")
    record, forecast = bundle.manifest.forecast, bundle.forecast
    assert record is not None
    assert forecast is not None
    assert (record.drawn, record.mm_per_pixel) == (40, 0.5)
    assert record.found == forecast.found()
    assert f"{forecast.sizes[-1]} pixels ({forecast.sizes[-1] / 2:.2g} mm)" in outcome.words
    assert "1 good part in 50 rejected: " in outcome.words
    assert outcome.words.count("<- the threshold") == 1
    assert outcome.out.count(" rejected: ") == 5
    assert "These defects are drawn, not real" in outcome.words
    assert "nearly blind: only" in outcome.words
    assert "100% is the least to be asked for (--least-detection)" in outcome.words


def test_a_bundle_that_finds_enough_is_not_called_blind(command: Command, good_folder: Path, tmp_path: Path) -> None:
    outcome = command("fit", good_folder, "-o", tmp_path / "b", "--size", "64", "--least-detection", "0")
    assert "nearly blind" not in outcome.words


@pytest.mark.parametrize("length", ["0", "-1", "nan", "inf"])
def test_a_length_that_makes_no_sense_is_refused(
    length: str, command: Command, good_folder: Path, tmp_path: Path
) -> None:
    outcome = command("fit", good_folder, "-o", tmp_path / "b", "--mm-per-pixel", length)
    assert_refused(outcome, "--mm-per-pixel .* makes no sense", "0.05")


@pytest.mark.slow
def test_a_video_can_be_calibrated_on(command: Command, data: Path, tmp_path: Path) -> None:
    source = data / "conveyor/bolt-multi-size-detection.gif"
    outcome = command("fit", source, "-o", tmp_path / "b", "--frames", "0:30", "--size", "64", "--location", "shared")
    assert outcome.code == 0
    assert open_bundle(tmp_path / "b").manifest.images.count == 30


@pytest.mark.slow
def test_skipped_images_are_counted_and_named(command: Command, tmp_path: Path) -> None:
    folder = save(tmp_path / "pictures", [washer(number) for number in range(20)])
    for number in range(7):
        (folder / f"{number:03}.png").write_bytes(b"damaged [here]")
    outcome = command("fit", folder, "-o", tmp_path / "b", "--size", "64")
    assert outcome.code == 0
    assert "7 images skipped:" in outcome.out
    assert f"{folder}/000.png is damaged or not an image" in outcome.out
    assert "and 2 more" in outcome.out


def test_verify_shows_that_a_bundle_is_intact(command: Command, learnt: Bundle) -> None:
    outcome = command("verify", learnt.path)
    assert outcome.code == 0
    assert "all files are intact, all scores within 0.001" in outcome.words
    assert outcome.err == ""


def test_evaluate_writes_the_score_of_every_image(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.csv"
    outcome = command("evaluate", learnt.path, labelled_folder, "--scores", scores)
    assert outcome.code == 0
    for said in ("8 good, 8 defective images", "image AUROC", "no masks", "scratch", "detection rate"):
        assert said in outcome.words
    with scores.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "defective", "score", "rejected"]
    assert [Path(row["path"]) for row in rows] == sorted(labelled_folder.rglob("*.png"))
    threshold = learnt.manifest.working_point.threshold
    with OnnxRuntimeEngine(learnt.network, 1) as engine:
        for row in rows:
            score = engine(read_image(Path(row["path"]))).score
            assert float(row["score"]) == pytest.approx(score, rel=1e-5)
            assert row["label"] == Path(row["path"]).parent.name
            assert row["defective"] == str(int(row["label"] != "good"))
            assert row["rejected"] == str(int(score > threshold))


def test_evaluate_reports_figures_that_follow_from_the_scores(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path
) -> None:
    outcome = command("evaluate", learnt.path, labelled_folder, "--scores", tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    good, bad = (np.array([float(row["score"]) for row in rows if row["defective"] == kind]) for kind in "01")
    auroc = np.mean(bad[:, None] > good[None])
    assert f"image AUROC {auroc:.4f}" in outcome.words
    rejected = np.mean([row["rejected"] == "1" for row in rows if row["defective"] == "1"])
    assert f"detection rate {rejected:.2%}" in outcome.words


def test_evaluate_skips_and_names_damaged_images(command: Command, learnt: Bundle, tmp_path: Path) -> None:
    for kind in ("good", "scratch"):
        save(tmp_path / kind, [washer(number, scratched=kind == "scratch") for number in range(3)])
        (tmp_path / kind / "001.png").write_bytes(b"damaged")
    outcome = command("evaluate", learnt.path, tmp_path, "--scores", tmp_path / "scores.csv")
    assert outcome.code == 0
    assert "2 images skipped:" in outcome.out
    assert f"{tmp_path}/scratch/001.png" in outcome.out


@pytest.mark.slow
def test_coloured_hazelnuts_are_separated_from_good_ones(command: Command, data: Path, tmp_path: Path) -> None:
    assert command("fit", data / "hazelnut", "-o", tmp_path / "nuts").code == 0
    assert command("verify", tmp_path / "nuts").code == 0
    outcome = command("evaluate", tmp_path / "nuts", data / "hazelnut", "--scores", tmp_path / "scores.csv")
    assert outcome.code == 0
    figures = dict(re.findall(r"(image AUROC|pixel AUROC) (\d\.\d+)", outcome.words))
    assert float(figures["image AUROC"]) > 0.9
    assert float(figures["pixel AUROC"]) > 0.9


@pytest.mark.slow
def test_a_timm_model_with_real_weights_sees_the_scratch(
    command: Command, good_folder: Path, labelled_folder: Path, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("timm", reason="timm is an extra: pip install --editable '.[fit]'")
    file = weights / "tf_efficientnet_lite0.safetensors"
    timm_model = f"--backbone tf_efficientnet_lite0 --stages blocks.2 --size 64 --weights {file}".split()
    assert command("fit", good_folder, "--out", tmp_path / "out", *timm_model).code == 0
    backbone = open_bundle(tmp_path / "out").manifest.backbone
    assert (backbone.name, backbone.stages, backbone.channels) == ("tf_efficientnet_lite0", ("blocks.2",), 40)
    assert backbone.weights_sha256 == (hashlib.sha256(file.read_bytes()).hexdigest(),)
    outcome = command("evaluate", tmp_path / "out", labelled_folder, "--scores", tmp_path / "scores.csv")
    assert float(re.findall(r"image AUROC (\d\.\d+)", outcome.words)[0]) > 0.9


@pytest.mark.slow
def test_an_onnx_backbone_can_be_used(command: Command, good_folder: Path, weights: Path, tmp_path: Path) -> None:
    file = weights / "mobilenet_v2_stride16.onnx"
    wrong = command("fit", good_folder, "-o", tmp_path / "out", "--backbone", file, "--size", "64")
    assert_refused(wrong, r"takes \(0, 3, 224, 224\), not \(n, 3, 64, 64\)", "--size")
    options = ["--backbone", file, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--location", "shared"]
    assert command("fit", good_folder, "-o", tmp_path / "out", *options).code == 0
    assert open_bundle(tmp_path / "out").manifest.backbone.name == "mobilenet_v2_stride16.onnx"
    assert command("verify", tmp_path / "out").code == 0


@pytest.mark.slow
def test_the_console_script_explains_itself() -> None:
    ended = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert ended.returncode == 0
    assert all(verb in ended.stdout for verb in ("fit", "verify", "evaluate", "benchmark"))
