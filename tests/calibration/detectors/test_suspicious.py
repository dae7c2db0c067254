from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.suspicious import suspicious_indices
from calibration.statistics.median_distance import MedianDistance

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (6, 3, 4)


def drawn(count: int, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    units = 10.0 ** random.integers(-3, 4, (1, SHAPE[0], 1, 1))
    return np.asarray(units * random.normal(5, 1, (count, *SHAPE)), np.float32)


def found(folder: Path, features: NDArray[np.float32], scores: NDArray[np.float64] | None = None) -> list[int]:
    flat = np.full(len(features), 7.0) + 0.001 * np.arange(len(features))
    with FeatureStore(folder, SHAPE) as store:
        for each in features:
            store.append(each)
        return suspicious_indices(flat if scores is None else scores, store, range(len(features)))


@pytest.mark.parametrize("strays", [1, 2, 5, 15])
def test_strays_that_look_the_same_do_not_hide_each_other(tmp_path: Path, strays: int) -> None:
    features = drawn(60)
    features[-strays:] = features[0] + 4 * features.std(axis=0)
    features[-strays:] += 1e-3 * drawn(strays, seed=1)
    assert set(range(60 - strays, 60)) <= set(found(tmp_path, features))


def test_no_good_image_is_suspicious_where_all_are_alike_but_for_noise(tmp_path: Path) -> None:
    assert sum(len(found(tmp_path, drawn(40, seed))) for seed in range(20)) <= 8  # of 800


def test_features_that_hardly_vary_make_no_image_suspicious(tmp_path: Path) -> None:
    features = drawn(40)
    features[:, 2], features[:, 3] = 3.0, 0.0
    features[7, 2, 1, 1] = np.nextafter(np.float32(3.0), np.float32(4.0))
    features[7, 3, 1, 1] = 1e-30
    assert 7 not in found(tmp_path, features)


def test_images_that_score_far_above_the_rest_are_named_first(tmp_path: Path) -> None:
    features, scores = drawn(40), np.linspace(5, 6, 40)
    scores[11] = 80.0
    features[30:32] = features[0] + 5 * features.std(axis=0)
    assert found(tmp_path, features, scores) == [11, 31, 30]


def test_the_distance_is_that_of_the_naive_formula() -> None:
    features = drawn(9)
    score, score_map = MedianDistance.of(features).scores(features)
    median = np.median(features, axis=0)
    spread = 1.4826 * np.median(np.abs(features - median), axis=0)
    root = [np.sqrt((values**2).mean(axis=(1, 2)))[:, None, None] for values in (spread, median)]
    floor = np.maximum(0.1 * root[0], 1e-3 * root[1])
    expected = (((features - median) / np.maximum(spread, floor)) ** 2).mean(axis=1)
    np.testing.assert_allclose(score_map, expected, rtol=1e-4)
    np.testing.assert_allclose(score, expected.mean(axis=(1, 2)), rtol=1e-4)


def test_images_that_are_all_the_same_give_finite_distances() -> None:
    same = np.repeat(drawn(1), 12, axis=0)
    assert np.isfinite(MedianDistance.of(same).scores(same).score).all()
