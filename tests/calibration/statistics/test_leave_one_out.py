"""Leave-one-out scores, compared with statistics that are fitted again without each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.detectors.contract import Folds
from calibration.detectors.fold_moments import by_location
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.statistics.leave_one_out import LeaveOneOut
from calibration.statistics.moments import Moments
from tests.support.oracles import NaiveDistance, generalised_mean
from tests.support.stored import stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.detectors.contract import Detector, Fit

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
CHANNELS, GRID = 12, (3, 2)
FEW, MANY = 10, 60


def drawn(count: int) -> Float32:
    """Correlated channels of different scales, locations of different means, and one outlier."""
    random = np.random.default_rng(3)
    mixing = random.normal(size=(CHANNELS, CHANNELS)) * np.logspace(-2, 1, CHANNELS)[:, None]
    vectors = random.standard_t(5, size=(count, *GRID, CHANNELS)) @ mixing.T + random.normal(size=(*GRID, CHANNELS))
    vectors[4] += 8 * np.abs(mixing).sum(axis=1)
    return np.asarray(vectors.transpose(0, 3, 1, 2), np.float32)


def held_out(detector: Detector, reduced: Float32, folds: Folds, folder: Path) -> tuple[Fit, Float64, Float64]:
    """The fit, and the held-out score and map of each image."""
    scores, maps = np.empty(len(reduced)), np.empty((len(reduced), *reduced.shape[2:]))
    with stored(reduced, folder) as store:
        fit = detector.fit(store, folds, [CHANNELS])
        for part, scorer in zip(folds.groups, fit.held_out, strict=True):
            scored = scorer.scores(reduced[list(part)])
            scores[list(part)], maps[list(part)] = scored.score, scored.map
    return fit, scores, maps


def folds_of(count: int, *, independent: bool = True) -> Folds:
    order = np.random.default_rng(1).permutation(count)
    return Folds([sorted(part.tolist()) for part in np.array_split(order, 5)], independent)


@pytest.mark.parametrize("count", [FEW, MANY], ids=["fewer images than channels", "more images than channels"])
@pytest.mark.parametrize("alpha", [0.001, 0.03, 0.5, 1.0])
def test_mean_shift_without_each_image(alpha: float, count: int, tmp_path: Path) -> None:
    detector, reduced, folds = MeanShift(alpha=alpha), drawn(count), folds_of(count)
    fit, scores, maps = held_out(detector, reduced, folds, tmp_path)
    assert fit.leave_one_out
    in_force = float(fit.parameters["alpha"])
    for part in folds.groups:
        others = np.delete(reduced, list(part), axis=0).astype(np.float64)
        for number in part:
            alone = np.delete(reduced, number, axis=0).astype(np.float64)
            naive = NaiveDistance.of_mean_shift(alone, detector, in_force, shrunk_toward=others)
            expected = naive.score_map(reduced[number].astype(np.float64))
            np.testing.assert_allclose(maps[number], expected, rtol=1e-4)
            assert scores[number] == pytest.approx(generalised_mean(expected, 8.0), rel=1e-4)


@pytest.mark.parametrize("count", [FEW, MANY], ids=["fewer images than channels", "more images than channels"])
def test_padim_without_each_image(count: int, tmp_path: Path) -> None:
    reduced, folds = drawn(count), folds_of(count)
    fit, scores, maps = held_out(Padim(dimensions=None), reduced, folds, tmp_path)
    assert fit.leave_one_out
    for number in range(count):
        naive = NaiveDistance.of_padim(np.delete(reduced, number, axis=0).astype(np.float64))
        expected = naive.score_map(reduced[number].astype(np.float64))
        np.testing.assert_allclose(maps[number], expected, rtol=1e-4)
        assert scores[number] == pytest.approx(expected.max(), rel=1e-4)


def test_the_global_statistic_without_each_image(tmp_path: Path) -> None:
    """Only the ridge, a thousandth of each variance, comes from the other folds."""
    detector, reduced = MeanShift(location="global"), np.delete(drawn(MANY)[:, :, :1, :1], 4, axis=0)
    _, scores, _ = held_out(detector, reduced, folds_of(len(reduced)), tmp_path)
    for number in range(len(reduced)):
        alone = np.delete(reduced, number, axis=0).astype(np.float64)
        expected = NaiveDistance.of_mean_shift(alone, detector, 1.0).score_map(reduced[number].astype(np.float64))
        assert scores[number] == pytest.approx(expected.max(), rel=0.03)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_changed_copy_is_scored_without_its_original(weight: float) -> None:
    """Against moments that are made without the image, in double precision."""
    random = np.random.default_rng(5)
    originals = random.normal(size=(30, CHANNELS, *GRID)).astype(np.float32)
    changed = originals + random.normal(scale=3.0, size=originals.shape).astype(np.float32)
    total = Moments.of(by_location(originals)).weighted(weight)
    base = np.diag(random.uniform(0.5, 2.0, CHANNELS))
    scorer = LeaveOneOut(total, lambda local: 0.7 * local + base, own_weight=0.7, order=8.0, image_weight=weight)
    found = scorer.scores(changed, originals).map
    for number in range(len(originals)):
        others = Moments.of(by_location(np.delete(originals, number, axis=0))).weighted(weight)
        inverse = np.linalg.inv(0.7 * others.covariance() + base)
        step = by_location(changed[[number]])[:, 0] - others.mean
        expected = np.einsum("ld,lde,le->l", step, inverse, step)
        np.testing.assert_allclose(found[number].ravel(), expected, rtol=2e-7)  # maps are float32


def test_an_unchanged_copy_scores_as_its_original() -> None:
    reduced = drawn(MANY)
    moments = Moments.of(by_location(reduced))
    scorer = LeaveOneOut(moments, lambda local: local + np.eye(CHANNELS), own_weight=1.0, order=8.0)
    np.testing.assert_array_equal(scorer.scores(reduced, reduced).map, scorer.scores(reduced).map)


def test_an_outlier_does_not_hide_itself(tmp_path: Path) -> None:
    reduced = drawn(MANY)
    fit, scores, _ = held_out(MeanShift(), reduced, folds_of(MANY), tmp_path)
    seen = fit.head.scores(reduced).score
    assert scores.argmax() == 4
    assert scores[4] > 10 * seen[4]


@pytest.mark.parametrize("make", [MeanShift, lambda: Padim(dimensions=None)], ids=["mean_shift", "padim"])
def test_neighbours_in_a_video_are_left_out_together(make: Callable[[], Detector], tmp_path: Path) -> None:
    fit, _, _ = held_out(make(), drawn(MANY), folds_of(MANY, independent=False), tmp_path)
    assert not fit.leave_one_out


def test_the_share_of_new_images_above_a_quantile_of_held_out_scores_is_as_requested(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        reduced = random.normal(size=(400, CHANNELS, *GRID)).astype(np.float32)
        fitted, new = reduced[:100], reduced[100:]
        fit, scores, _ = held_out(MeanShift(), fitted, folds_of(100), tmp_path)
        shares.append(float((fit.head.scores(new).score > np.quantile(scores, 0.9)).mean()))
    assert np.mean(shares) == pytest.approx(0.1, abs=0.02)
