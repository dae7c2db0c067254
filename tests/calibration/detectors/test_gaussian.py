"""The Gaussian of each level: its covariance, its components and its distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.gaussian import _NO_VARIANCE, Gaussian, GaussianHead, kept_components, ledoit_wolf
from calibration.errors import DegenerateFeaturesError, SettingError
from tests.support.oracles import gaussian_score, principal_components

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

sklearn_covariance = pytest.importorskip("sklearn.covariance", reason="an extra: pip install --editable '.[evaluate]'")

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
@pytest.mark.parametrize("levels", [(9,), (2, 3, 4)])
@pytest.mark.parametrize("distance", ["mahalanobis", "l2", "sed"])
def test_the_score_is_the_sum_of_the_distances_at_each_level(
    components: Literal["all", "pca", "npca"],
    share: float,
    levels: tuple[int, ...],
    distance: Literal["mahalanobis", "l2", "sed"],
    tmp_path: Path,
) -> None:
    good = vectors(1, 30, 9, offset=3.0).astype(np.float32).astype(np.float64)
    tested = vectors(2, 5, 9).astype(np.float32)
    head = head_of(good, Gaussian(components, share, distance), levels, tmp_path)
    borders = np.cumsum(levels)[:-1]
    seen = head.scores(tested[:, :, None, None])
    for number, vector in enumerate(tested):
        parts = np.split(good, borders, axis=1), np.split(vector.astype(np.float64), borders)
        assert seen.score[number] == pytest.approx(gaussian_score(*parts, components, share, distance), rel=1e-4)
        assert seen.map[number].shape == (1, 1)
        assert seen.map[number, 0, 0] == seen.score[number]


@given(seeds, st.sampled_from(["pca", "npca"]), st.floats(0.01, 0.99), st.integers(3, 40))
def test_the_kept_components_are_those_of_the_covariance_before_it_is_shrunk(
    seed: int, components: Literal["pca", "npca"], share: float, count: int
) -> None:
    good = vectors(seed, count, 7, offset=5.0)
    seen = kept_components(good, components, share)
    expected = principal_components(good - good.mean(axis=0), components, share)
    assert seen.shape == expected.shape
    np.testing.assert_allclose(seen.T @ seen, expected.T @ expected, atol=1e-5)


def test_pca_and_npca_reach_the_share_of_the_variance() -> None:
    good = np.vstack([np.diag([1.0, 2.0, 15**0.5, 80**0.5]), -np.diag([1.0, 2.0, 15**0.5, 80**0.5])])
    # Of the variance, 1, 4, 15 and 80 hundredths, along the axes.
    assert kept_axes(good, "pca", 0.79) == [3]
    assert kept_axes(good, "pca", 0.9) == [2, 3]
    assert kept_axes(good, "npca", 0.04) == [0, 1, 2]
    assert kept_axes(good, "npca", 0.009) == [0, 1]
    assert kept_axes(good, "npca", 0.21) == [0, 1, 2, 3]


def kept_axes(good: Float64, components: Literal["pca", "npca"], share: float) -> list[int]:
    """Axes that the kept components lie along."""
    return sorted(int(each) for each in np.abs(kept_components(good, components, share)).argmax(axis=1))


def test_the_smallest_components_are_not_hidden_by_the_shrinkage() -> None:
    """A shrunk covariance would have no small variances: all but a few components would be left out."""
    random = np.random.default_rng(0)
    scales = np.logspace(0, -3, 30)
    good = random.normal(size=(60, 30)) * scales
    kept = len(kept_components(good, "npca", 1e-4))
    variances = np.linalg.eigvalsh(ledoit_wolf(good))
    assert int((np.cumsum(variances) <= 1e-4 * variances.sum()).sum()) == 0
    assert kept > 10


@pytest.mark.parametrize("components", ["all", "pca", "npca"])
@pytest.mark.parametrize("distance", ["mahalanobis", "l2", "sed"])
def test_fewer_images_than_channels_give_finite_distances(
    components: Literal["all", "pca", "npca"], distance: Literal["mahalanobis", "l2", "sed"], tmp_path: Path
) -> None:
    good = vectors(1, 10, 25, offset=3.0).astype(np.float32).astype(np.float64)
    good[:, :3] = 2.0  # channels that never vary
    tested = (good[:4] + vectors(2, 4, 25)).astype(np.float32)
    head = head_of(good, Gaussian(components, 0.9, distance), (25,), tmp_path)
    assert max(np.abs(each).max() for each in head.whitenings) < 1e3
    live = slice(3 if distance == "sed" and components == "all" else 0, None)  # without a scale of their own
    factor = (len(range(25)[live]) / 25) ** 0.5
    expected = [
        factor * gaussian_score([good[:, live]], [each[live].astype(np.float64)], components, 0.9, distance)
        for each in tested
    ]
    np.testing.assert_allclose(head.scores(tested[:, :, None, None]).score, expected, rtol=1e-3)


@given(seeds, st.integers(2, 30))
@example(232901, 27)  # one direction varies by less than rounding
def test_all_of_the_variance_keeps_all_components_that_vary(seed: int, channels: int) -> None:
    good = vectors(seed, 40, channels)
    variances = np.linalg.eigvalsh(np.cov(good, rowvar=False).reshape(channels, channels))
    varying = int((variances > _NO_VARIANCE * variances[-1]).sum())
    assert Gaussian("pca", 1.0)._whitening(good).shape == (varying, channels)
    assert Gaussian("npca", 1.0)._whitening(good).shape == (varying, channels)
    assert Gaussian("all", 1.0)._whitening(good).shape == (channels, channels)


def test_at_least_one_component_is_left() -> None:
    for components in ("pca", "npca"):
        assert 1 <= len(Gaussian(components, 1e-9)._whitening(vectors(0, 20, 3))) <= 2


@pytest.mark.parametrize("distance", ["mahalanobis", "sed"])
@pytest.mark.parametrize("components", ["all", "pca"])
def test_images_that_are_all_the_same_are_refused(
    components: Literal["all", "pca"], distance: Literal["mahalanobis", "sed"]
) -> None:
    with pytest.raises(DegenerateFeaturesError, match="features of all images are the same"):
        Gaussian(components, distance=distance)._whitening(np.ones((10, 3)))


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, float("nan")])
def test_a_share_of_variance_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(SettingError, match="retained_variance"):
        Gaussian("pca", share)


def test_unknown_components_are_refused() -> None:
    with pytest.raises(SettingError, match="give all, pca or npca"):
        Gaussian("some")  # type: ignore[arg-type]


def test_unknown_distances_are_refused() -> None:
    with pytest.raises(SettingError, match="give mahalanobis, l2 or sed"):
        Gaussian(distance="euclidean")  # type: ignore[arg-type]


@pytest.mark.parametrize(("levels", "tolerance"), [((4,), 1e-9), ((1, 3), 0.02)])
def test_the_gaussian_threshold_is_the_root_of_chi_square_or_a_sum_of_such(
    levels: tuple[int, ...], tolerance: float
) -> None:
    whitenings = tuple(np.eye(each, dtype=np.float32) for each in levels)
    head = GaussianHead(tuple(np.zeros(each, np.float32) for each in levels), whitenings)
    random = np.random.default_rng(1)
    drawn = sum(np.sqrt(chi2(each).rvs(400_000, random_state=random)) for each in levels)
    expected = chi2(4).isf(0.05) ** 0.5 if len(levels) == 1 else np.quantile(drawn, 0.95)
    assert head.gaussian_threshold(0.05) == pytest.approx(expected, rel=tolerance)


def test_the_baselines_have_no_law_of_scores(tmp_path: Path) -> None:
    good = vectors(1, 30, 4).astype(np.float32)
    with FeatureStore(tmp_path, (4, 1, 1)) as store:
        for each in good:
            store.append(each[:, None, None])
        folds = Folds([range(len(good))])
        assert Gaussian().fit(store, folds, [4]).gaussian_threshold is not None
        assert Gaussian(distance="l2").fit(store, folds, [4]).gaussian_threshold is None
        assert Gaussian(distance="sed").fit(store, folds, [4]).gaussian_threshold is None
