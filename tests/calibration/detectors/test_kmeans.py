"""Several kinds of good parts on one production line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.detectors import fold_moments
from calibration.detectors.contract import Folds
from calibration.detectors.kmeans import fit_modes
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DegenerateFeaturesError, SettingError
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.levels import two_levels
from tests.support.stored import stored
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.detectors.mean_shift import Location
    from calibration.imaging.preprocess import Image

Float32 = NDArray[np.float32]
CHANNELS, GRID, COUNT = 6, (2, 3), 80
CENTRES = np.array([[4, -4, 4, 0, 0, 0], [-4, 4, -4, 0, 0, 0]], np.float32)


def two_kinds(count: int = COUNT, seed: int = 0) -> tuple[Float32, NDArray[np.intp]]:
    """Features of both kinds, (n, d, h, w), and which is which."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 2, count)
    noise = random.normal(size=(count, CHANNELS, *GRID))
    return (CENTRES[kinds][:, :, None, None] + noise).astype(np.float32), kinds


def test_the_kinds_are_found_at_every_location(tmp_path: Path) -> None:
    features, kinds = two_kinds()
    with stored(features, tmp_path) as store:
        modes = fit_modes(store, range(COUNT), fold_moments.by_location, 2)
    truth = np.stack([features[kinds == kind].reshape(-1, CHANNELS, 6).mean(axis=0).T for kind in (0, 1)], axis=1)
    for place in range(6):
        found = modes.means[place][np.argsort(-modes.means[place][:, 0])]
        np.testing.assert_allclose(found, truth[place], atol=1e-5)
    for place in range(6):
        around = np.zeros((CHANNELS, CHANNELS))
        for kind in (0, 1):
            vectors = features[kinds == kind].reshape(-1, CHANNELS, 6)[:, :, place].astype(np.float64)
            around += (vectors - vectors.mean(axis=0)).T @ (vectors - vectors.mean(axis=0))
        np.testing.assert_allclose(modes.covariance()[place], around / (COUNT - 2), rtol=1e-4, atol=1e-4)


def test_a_vector_between_the_kinds_is_far_off_only_with_two_means(tmp_path: Path) -> None:
    features, _ = two_kinds()
    between = np.zeros((1, CHANNELS, *GRID), np.float32)
    with stored(features, tmp_path) as store:
        folds = Folds([range(40), range(40, COUNT)])
        one, two = (MeanShift(modes=number).fit(store, folds, [CHANNELS]).head for number in (1, 2))
    good = two_kinds(200, seed=1)[0]
    assert one.scores(between).score[0] < np.median(one.scores(good).score)
    assert two.scores(between).score[0] > 1.5 * two.scores(good).score.max()


@pytest.mark.parametrize("location", ["local", "shared"])
def test_the_alpha_in_the_manifest_is_the_one_in_force(location: Location, tmp_path: Path) -> None:
    folds = Folds([range(40), range(40, COUNT)])
    with stored(two_kinds()[0], tmp_path) as store:
        derived = MeanShift(location=location, modes=2).fit(store, folds, [CHANNELS])
        given = MeanShift(alpha=float(derived.parameters["alpha"]), location=location, modes=2)
        again = given.fit(store, folds, [CHANNELS])
    tested = two_kinds(20, seed=1)[0]
    np.testing.assert_array_equal(derived.head.scores(tested).map, again.head.scores(tested).map)
    assert derived.parameters["alpha"] == (1.0 if location == "shared" else 0.3)


def test_a_second_run_finds_the_same(tmp_path: Path) -> None:
    with stored(two_kinds()[0], tmp_path) as store:
        one, other = (fit_modes(store, range(COUNT), fold_moments.by_location, 3) for _ in range(2))
    np.testing.assert_array_equal(one.means, other.means)
    np.testing.assert_array_equal(one.scatter, other.scatter)


def test_more_means_than_kinds_do_no_harm(tmp_path: Path) -> None:
    with stored(two_kinds(20)[0], tmp_path) as store:
        head = MeanShift(modes=6).fit(store, Folds([range(10), range(10, 20)]), [CHANNELS]).head
    assert np.isfinite(head.scores(two_kinds()[0]).map).all()


def test_more_means_than_different_images_are_refused(tmp_path: Path) -> None:
    features = np.repeat(two_kinds(4)[0], 5, axis=0)
    with (
        stored(features, tmp_path) as store,
        pytest.raises(DegenerateFeaturesError, match=r"(?s)6 means.*fewer --modes"),
    ):
        MeanShift(modes=6).fit(store, Folds([range(10), range(10, 20)]), [CHANNELS])


def dyed(number: int) -> Image:
    """Washers of two colours, in turn."""
    picture = washer(number)
    return picture if number % 2 else np.ascontiguousarray(picture[..., ::-1] // 2)


@pytest.mark.slow
def test_two_means_distinguish_two_colours_from_a_mixture_better_than_one(tmp_path: Path) -> None:
    margins = []
    for modes in (1, 2):
        settings = Settings(Preprocess(SIDE, SIDE), MeanShift(modes=modes), false_reject_rate=0.1, threads=1)
        good = [dyed(number) for number in range(60)]
        bundle = calibrate(Drawn(good), two_levels(), settings, tmp_path / str(modes), lambda *_: None)
        threshold = bundle.manifest.working_point.threshold
        with OnnxRuntimeEngine(bundle.network, 1) as engine:
            new = np.array([engine(dyed(number)).score for number in range(100, 120)])
            mixed = [engine(dyed(number) // 2 + dyed(number + 1) // 2).score for number in range(100, 110)]
        assert (new > threshold).mean() <= 0.3
        margins.append(min(mixed) / threshold)
    assert margins[1] > 1.1 * margins[0]


@pytest.mark.parametrize("number", [0, -1])
def test_no_mean_at_all_is_refused(number: int) -> None:
    with pytest.raises(SettingError, match=f"modes = {number} is too small"):
        MeanShift(modes=number)
