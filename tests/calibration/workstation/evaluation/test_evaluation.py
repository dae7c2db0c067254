"""Figures on images whose truth is known: each against a small example or a slow formula."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom
from sklearn.metrics import roc_auc_score

from calibration.engine.contract import Inference
from calibration.imaging.image_files import read_image
from calibration.statistics.threshold import expected_share_above, working_point
from calibration.workstation.evaluation.evaluation import _pixel_auroc, evaluate, sklearn_metrics
from calibration.workstation.evaluation.pixel_metrics import PixelHistogram
from calibration.workstation.labelled_images import labelled_images
from tests.support.fakes import FakeEngine
from tests.support.outcome import assert_refused
from tests.support.washers import SIDE, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.workstation.evaluation.evaluation import EvaluationResult
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

DRAWS = 400


class BrightnessEngine(FakeEngine):
    """Scores an image by its brightness, wherever it is bright."""

    def __call__(self, frame: Image) -> Inference:
        grey = frame.mean(axis=2, dtype=np.float32)
        cells = cv2.resize(grey, (3, 3), interpolation=cv2.INTER_AREA)
        return Inference(float(grey.mean()), np.asarray(cells, np.float32))


def flat(folder: Path, levels: list[int]) -> None:
    save(folder, [np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels])


@pytest.fixture
def figures(tmp_path: Path, learnt: Bundle) -> EvaluationResult:
    flat(tmp_path / "good", [10, 20, 30, 40])
    flat(tmp_path / "dent", [25])
    flat(tmp_path / "rust", [50, 60])
    return evaluate(labelled_images(tmp_path), learnt, BrightnessEngine(), lambda *_: None)


def test_figures_without_a_threshold_are_those_counted_by_hand(figures: EvaluationResult) -> None:
    assert figures.image_auroc == pytest.approx(10 / 12)
    assert figures.average_precision == pytest.approx((1 / 1 + 2 / 2 + 3 / 5) / 3)
    assert figures.best_f1 == pytest.approx(0.8)
    assert figures.best_f1_threshold == 50.0
    assert figures.false_reject_rate_at_full_detection == 2 / 4
    assert (figures.pixel_auroc, figures.region_overlap) == (None, None)


def test_figures_at_the_threshold_are_those_of_the_bundle(figures: EvaluationResult, learnt: Bundle) -> None:
    assert figures.threshold == learnt.manifest.working_point.threshold
    assert figures.promised_false_reject_rate == 0.01
    assert (figures.false_reject_rate, figures.detection_rate) == (0.0, 0.0)
    assert figures.detection_by_kind == {"dent": 0.0, "rust": 0.0}
    assert figures.promise_kept
    assert (len(figures.good), len(figures.defective)) == (4, 3)


def slow_region_overlap(maps: list[NDArray[np.float32]], masks: list[NDArray[np.bool_]]) -> float:
    """By the definition: one threshold after the other, one region after the other."""
    regions = []
    for number, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [(number, labels == label) for label in range(1, count)]
    good = np.concatenate([score_map[~mask] for score_map, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([each.ravel() for each in maps]))[::-1]:
        overlap = np.mean([(maps[number][region] >= threshold).mean() for number, region in regions])
        points.append((float((good >= threshold).mean()), float(overlap)))
    rates, shares = np.array(points).T
    grid = np.linspace(0, 0.3, 30001)
    return float(np.interp(grid, rates, shares).mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_region_overlap_is_that_of_the_slow_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    masks, maps, pixels = [], [], PixelHistogram()
    for _ in range(4):
        mask = np.zeros((32, 40), np.bool_)
        for _ in range(int(random.integers(0, 4))):
            row, column = random.integers(0, 26, 2)
            mask[row : row + int(random.integers(1, 7)), column : column + int(random.integers(1, 9))] = True
        score_map = np.exp(random.normal(3.0, 1.0, mask.shape) + 1.2 * mask).astype(np.float32)
        pixels.add(score_map, mask)
        maps.append(score_map)
        masks.append(mask)
    assert pixels.region_overlap() == pytest.approx(slow_region_overlap(maps, masks), abs=0.005)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[:30, :30] = mask[60, 60] = True
    score_map = np.where(mask, 1.0, 10.0).astype(np.float32)
    score_map[60, 60] = 100.0
    pixels = PixelHistogram()
    pixels.add(score_map, mask)
    assert pixels.regions == 2
    # One of two regions is found before any false positive; the other only after all of them.
    assert pixels.region_overlap() == pytest.approx(0.5, abs=0.03)


def test_a_map_that_shows_the_defect_alone_has_all_its_overlap() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[10:20, 10:20] = True
    pixels = PixelHistogram()
    pixels.add(np.where(mask, 90.0, 3.0).astype(np.float32), mask)
    assert pixels.region_overlap() == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_pixels_are_ranked_whatever_the_scale_of_the_scores(scale: float) -> None:
    """Trained features of Patch SVDD lie so near to one another that all scores are below e^-5."""
    random = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.bool_)
    mask[10:20, 10:20] = True
    score_map = np.exp(random.normal(0.0, 1.0, mask.shape) + 1.5 * mask)
    pixels, scaled = PixelHistogram(), PixelHistogram()
    pixels.add(score_map.astype(np.float32), mask)
    scaled.add((scale * score_map).astype(np.float32), mask)
    assert scaled.region_overlap() == pytest.approx(pixels.region_overlap(), abs=0.01)
    assert _pixel_auroc(sklearn_metrics(), scaled) == pytest.approx(
        roc_auc_score(mask.ravel(), score_map.ravel()), abs=1e-3
    )


def test_without_masks_there_is_no_overlap() -> None:
    pixels = PixelHistogram()
    pixels.add(np.ones((8, 8), np.float32), np.zeros((8, 8), np.bool_))
    assert pixels.region_overlap() is None


@given(st.integers(10, 900), st.floats(0.0, 0.5), st.integers(1, 500))
def test_the_expected_share_is_that_of_the_beta_binomial_distribution(count: int, share: float, new: int) -> None:
    above = int(share * count)
    low, high = expected_share_above(np.arange(count, dtype=np.float64), count - above - 0.5, new)
    if above:
        expected = np.array(
            [
                betabinom.ppf(0.025, new, above, count + 1 - above),
                betabinom.ppf(0.975, new, above + 1, count - above),
            ]
        )
    else:
        expected = np.array([0.0, betabinom.ppf(0.95, new, 1, count)])
    np.testing.assert_allclose([low * new, high * new], expected, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rate"), [(300, 0.05), (150, 0.001)])
def test_the_observed_share_of_new_good_images_is_as_expected_nearly_always(count: int, rate: float) -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(DRAWS):
        known = random.exponential(50.0, count)
        point = working_point(known, rate)
        low, high = expected_share_above(known, point.threshold, 200)
        inside += low <= float(np.mean(random.exponential(50.0, 200) > point.threshold)) <= high
    assert inside / DRAWS > 0.93


def test_a_promise_that_is_not_kept_is_called_so(command: Command, learnt: Bundle, tmp_path: Path) -> None:
    save(tmp_path / "set" / "good", [washer(number, scratched=True) for number in range(10)])
    save(tmp_path / "set" / "scratch", [washer(number, scratched=True) for number in range(20, 23)])
    outcome = command("evaluate", learnt.path, tmp_path / "set", "--scores", tmp_path / "scores.csv")
    assert "observed 100.00% of 10; promised 1.00%, expected 0.00% to" in outcome.words
    assert "NOT kept" in outcome.words


def test_a_promise_that_is_kept_is_called_so(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path
) -> None:
    outcome = command("evaluate", learnt.path, labelled_folder, "--scores", tmp_path / "scores.csv")
    assert ": kept" in outcome.words
    assert "NOT kept" not in outcome.words


def test_all_figures_are_written_as_json(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    assert command("evaluate", learnt.path, labelled_folder, "--scores", tmp_path / "s.csv", "--json", file).code == 0
    figures = json.loads(file.read_text())
    assert figures["bundle"] == learnt.identity
    assert (figures["good"], figures["defective"]) == (8, 8)
    assert figures["image_auroc"] == 1.0
    assert figures["detection_by_kind"] == {"scratch": figures["detection_rate"]}
    assert figures["region_overlap"] is None
    assert figures["promise_kept"] is True
    assert "scored" not in figures


def test_masks_give_figures_over_pixels(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path
) -> None:
    for kind in ("good", "scratch"):
        pictures = [read_image(path) for path in sorted((labelled_folder / kind).glob("*.png"))]
        save(tmp_path / "set" / "test" / kind, pictures)
    # The scratch is red on grey; the drawn line, not where the network should look.
    masks = [np.where(picture[..., 2] > 2.0 * picture[..., 1], 255, 0).astype(np.uint8) for picture in pictures]
    save(tmp_path / "set" / "ground_truth" / "scratch", masks)
    file = tmp_path / "figures.json"
    command("evaluate", learnt.path, tmp_path / "set", "--scores", tmp_path / "s.csv", "--json", file)
    figures = json.loads(file.read_text())
    assert figures["pixel_auroc"] > 0.8
    assert figures["region_overlap"] > 0.4


def test_of_mvtec_only_defects_with_masks_and_good_images_count_as_pixels(learnt: Bundle, tmp_path: Path) -> None:
    flat(tmp_path / "test" / "good", [10])
    flat(tmp_path / "test" / "dent", [25, 26])
    save(tmp_path / "test" / "grey", [np.full((SIDE, SIDE), 90, np.uint8)])
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:24, 8:24] = 255
    for kind in ("dent", "grey"):
        save(tmp_path / "ground_truth" / kind, [mask], suffix="_mask.png")
    images = labelled_images(tmp_path)
    assert {(image.label, image.mask is not None) for image in images} == {
        ("good", False),
        ("dent", True),
        ("dent", False),
        ("grey", True),
    }
    result = evaluate(images, learnt, BrightnessEngine(), lambda *_: None)
    # All pixels of an image have its score; those of the dent without a mask are neither good nor defective.
    inside = 16**2
    by_image = [(10.0, SIDE**2, 0), (25.0, SIDE**2 - inside, inside), (90.0, SIDE**2 - inside, inside)]
    above = sum(
        bad * fine * ((score > other) + 0.5 * (score == other))
        for score, _, bad in by_image
        for other, fine, _ in by_image
    )
    total = sum(bad for _, _, bad in by_image) * sum(fine for _, fine, _ in by_image)
    assert result.pixel_auroc == pytest.approx(above / total)


def test_a_mask_that_does_not_fit_its_image_is_named(learnt: Bundle, tmp_path: Path) -> None:
    flat(tmp_path / "test" / "good", [10])
    flat(tmp_path / "test" / "dent", [25, 26])
    masks = [np.full((SIDE // 2, SIDE), 255, np.uint8), np.full((SIDE, SIDE), 255, np.uint8)]
    save(tmp_path / "ground_truth" / "dent", masks, suffix="_mask.png")
    result = evaluate(labelled_images(tmp_path), learnt, BrightnessEngine(), lambda *_: None)
    assert [each.image.path.name for each in result.defective] == ["001.png"]
    assert len(result.skipped) == 1
    assert result.skipped[0].endswith("dent/000_mask.png is of 64x32 pixels, its image of 64x64")


@pytest.mark.slow
def test_plots_show_curves_and_the_worst_mistakes(command: Command, learnt: Bundle, tmp_path: Path) -> None:
    bad = [washer(number, scratched=True) for number in range(9)]
    save(tmp_path / "set" / "good", [*(washer(number) for number in range(100, 103)), *bad[:7]])
    save(tmp_path / "set" / "scratch", [*bad[7:], washer(110)])
    plots = tmp_path / "new" / "plots"
    outcome = command("evaluate", learnt.path, tmp_path / "set", "--scores", tmp_path / "s.csv", "--plots", plots)
    assert outcome.code == 0
    names = ["false_rejects.png", "misses.png", "roc.png", "scores.png"]
    assert sorted(path.name for path in plots.iterdir()) == names
    pictures = {name: read_image(plots / name) for name in names}
    assert all(np.ptp(picture) > 100 for picture in pictures.values())
    assert pictures["false_rejects.png"].shape[1] > 4 * pictures["misses.png"].shape[1]  # six pictures, and one


@pytest.mark.slow
def test_without_mistakes_there_are_no_plots_of_them_not_even_old_ones(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "misses.png").write_bytes(b"of an earlier run")
    options = ["--scores", tmp_path / "s.csv", "--plots", tmp_path]
    assert command("evaluate", learnt.path, labelled_folder, *options).code == 0
    assert not (tmp_path / "misses.png").exists()
    assert (tmp_path / "roc.png").exists()


def test_without_matplotlib_the_command_says_what_to_install(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    options = ["--scores", tmp_path / "s.csv", "--plots", tmp_path / "plots"]
    outcome = command("evaluate", learnt.path, labelled_folder, *options)
    assert_refused(outcome, "plots need matplotlib", r"pip install .*'\.\[evaluate\]'")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--json", "--plots"])
def test_a_file_that_cannot_be_written_is_named_with_its_option(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    options = ["--scores", tmp_path / "s.csv", option, tmp_path / "file" / "inside"]
    assert_refused(command("evaluate", learnt.path, labelled_folder, *options), "cannot write", option)
