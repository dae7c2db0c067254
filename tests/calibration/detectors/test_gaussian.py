"""The Gaussian of each level: its covariance, its components and its distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.gaussian import Gaussian, GaussianHead, ledoit_wolf
from calibration.errors import DegenerateFeaturesError, SettingError
from tests.support.oracles import gaussian_score, kept_components

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

sklearn_covariance = pytest.importorskip("sklearn.covariance", reason="an extra: pip install 'shiftwatch[evaluate]'")

Float64 = NDArray[np.float64]
seeds = st.integers(0, 2**32)


def vectors(seed: int, count: int, channels: int, offset: float = 0.0) -> Float64:
    """Correlated, and of unlike scales."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels, channels)) * random.uniform(0.1, 3.0, channels)
    return np.asarray(offset + random.normal(size=(count, channels)) @ mixing)


def head_of(good: Float64, detector: Gaussian, levels: Sequence[int], folder: Path) -> GaussianHead:
    """Learnt from (n, d)."""
    with FeatureStore(folder, (good.shape[1], 1, 1)) as store:
        for each in good:
            store.append(each[:, None, None].astype(np.float32))
        head = detector.fit(store, Folds([range(len(good))]), levels).head
    assert isinstance(head, GaussianHead)
    return head


@given(seeds, st.integers(2, 80), st.integers(1, 12), st.floats(-50, 50))
def test_the_shrunk_covariance_is_that_of_scikit_learn(seed: int, count: int, channels: int, offset: float) -> None:
    good = vectors(seed, count, channels, offset)
    expected = sklearn_covariance.ledoit_wolf(good)[0]
    np.testing.assert_allclose(ledoit_wolf(good), expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("components", ["all", "pca", "npca"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("levels", [(9,), (4, 5), (2, 3, 4)])
def test_the_score_is_the_sum_of_the_distances_at_each_level(
    components: Literal["all", "pca", "npca"], share: float, levels: tuple[int, ...], tmp_path: Path
) -> None:
    good = vectors(1, 30, 9, offset=3.0).astype(np.float32).astype(np.float64)
    tested = vectors(2, 5, 9).astype(np.float32)
    head = head_of(good, Gaussian(components, share), levels, tmp_path)
    borders = np.cumsum(levels)[:-1]
    seen = head.scores(tested[:, :, None, None])
    for number, vector in enumerate(tested):
        parts = np.split(good, borders, axis=1), np.split(vector.astype(np.float64), borders)
        assert seen.score[number] == pytest.approx(gaussian_score(*parts, components, share), rel=1e-4)
        assert seen.map[number].shape == (1, 1)
        assert seen.map[number, 0, 0] == seen.score[number]


@given(seeds, st.sampled_from(["pca", "npca"]), st.floats(0.01, 0.99))
def test_the_kept_components_are_those_of_largest_or_smallest_variance(
    seed: int, components: Literal["pca", "npca"], share: float
) -> None:
    covariance = ledoit_wolf(vectors(seed, 40, 7))
    variances, directions = np.linalg.eigh(covariance)
    whitening = Gaussian(components, share)._whitening(covariance)
    kept = kept_components(variances, components, share)
    assert len(whitening) == len(kept)
    seen = np.abs(whitening @ directions)
    expected = np.zeros((len(kept), 7))
    expected[range(len(kept)), kept] = 1 / np.sqrt(variances[kept])
    np.testing.assert_allclose(seen, expected, rtol=1e-6, atol=1e-6 * expected.max())


def test_pca_and_npca_keep_opposite_components() -> None:
    covariance = np.diag([1.0, 4.0, 15.0, 80.0])
    assert len(Gaussian("pca", 0.9)._whitening(covariance)) == 2
    assert len(Gaussian("npca", 0.05)._whitening(covariance)) == 2
    large, small = (np.abs(Gaussian(*each)._whitening(covariance)) for each in (("pca", 0.9), ("npca", 0.05)))
    np.testing.assert_allclose(large, [[0, 0, 15**-0.5, 0], [0, 0, 0, 80**-0.5]], atol=1e-12)
    np.testing.assert_allclose(small, [[1.0, 0, 0, 0], [0, 0.5, 0, 0]], atol=1e-12)


@given(seeds, st.integers(2, 30))
def test_all_of_the_variance_keeps_all_components(seed: int, channels: int) -> None:
    covariance = ledoit_wolf(vectors(seed, 40, channels))
    for components in ("pca", "npca", "all"):
        assert Gaussian(components, 1.0)._whitening(covariance).shape == (channels, channels)


def test_at_least_one_component_is_left() -> None:
    for components in ("pca", "npca"):
        assert len(Gaussian(components, 1e-9)._whitening(np.diag([1.0, 2.0, 3.0]))) == 1


def test_a_zero_covariance_is_refused() -> None:
    with pytest.raises(DegenerateFeaturesError, match="features of all images are the same"):
        Gaussian()._whitening(ledoit_wolf(np.ones((10, 3))))


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, float("nan")])
def test_a_share_of_variance_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(SettingError, match="retained_variance"):
        Gaussian("pca", share)


def test_unknown_components_are_refused() -> None:
    with pytest.raises(SettingError, match="give all, pca or npca"):
        Gaussian("some")  # type: ignore[arg-type]
