"""Covariances, shrinkage and the distances they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.detectors.mean_shift import MeanShift
from calibration.errors import DegenerateFeaturesError, SettingError
from calibration.statistics.covariance import inverse_cholesky, pooled_target, shrunk_whitening
from calibration.statistics.moments import Moments

if TYPE_CHECKING:
    from calibration.detectors.head import Head

Float64 = NDArray[np.float64]
RIDGE = 1e-3
seeds = st.integers(0, 2**32)


def covariances_of(random: np.random.Generator, locations: int, channels: int, count: int) -> Float64:
    mixing = random.normal(size=(locations, channels, channels))
    return Moments.of(random.normal(size=(locations, count, channels)) @ mixing).covariance()


def naive_sigma(covariances: Float64, alpha: float, ridge: float) -> Float64:
    """Sigma_l = (1 - alpha) C_l + alpha (S + ridge), by loops."""
    pooled = np.add.reduce(covariances) / len(covariances)
    mean_variance = np.trace(pooled) / len(pooled)
    for channel in range(len(pooled)):
        pooled[channel, channel] += ridge * max(pooled[channel, channel], 1e-3 * mean_variance)
    return np.stack([(1 - alpha) * covariance + alpha * pooled for covariance in covariances])


@pytest.mark.slow
@given(seeds, st.integers(1, 60), st.integers(1, 6), st.sampled_from([0.03, 0.1, 0.5, 1.0]))
def test_whitened_covariance_is_the_identity(seed: int, locations: int, channels: int, alpha: float) -> None:
    random = np.random.default_rng(seed)
    covariances = covariances_of(random, locations, channels, count=3 * channels + 2)
    whitening = shrunk_whitening(covariances, pooled_target(covariances, RIDGE), alpha)
    sigma = naive_sigma(covariances, alpha, RIDGE)
    assert len(whitening) == (1 if alpha == 1.0 else locations)
    assert (np.triu(whitening, 1) == 0).all()
    for factor, covariance in zip(np.broadcast_to(whitening, sigma.shape), sigma, strict=True):
        wide = factor.astype(np.float64)
        np.testing.assert_allclose(wide @ covariance @ wide.T, np.eye(channels), atol=1e-3)


@given(seeds)
def test_inverse_cholesky_factors_invert(seed: int) -> None:
    covariances = covariances_of(np.random.default_rng(seed), 3, 5, count=40)
    factors = inverse_cholesky(covariances)
    np.testing.assert_allclose(factors @ covariances @ factors.transpose(0, 2, 1), [np.eye(5)] * 3, atol=1e-6)


def distances_of(head: Head, vectors: Float64) -> NDArray[np.float32]:
    """Distances by the head of vectors (locations, n, d): (n, locations)."""
    reduced = vectors.astype(np.float32).transpose(1, 2, 0)[..., None]
    return head.scores(reduced).map[..., 0]


def scores(vectors: Float64, detector: MeanShift) -> Float64:
    """T2 of every vector, (n, locations), in float64."""
    moments = Moments.of(vectors)
    covariances = moments.covariance()
    sigma = naive_sigma(covariances, detector.alpha, detector.ridge)
    centred = vectors - moments.mean[:, None]
    distances: Float64 = np.einsum("lni,lij,lnj->nl", centred, np.linalg.inv(sigma), centred)
    seen = distances_of(detector.head(moments), vectors)
    np.testing.assert_allclose(seen, distances, rtol=2e-3, atol=1e-4)
    return distances


def features(random: np.random.Generator) -> Float64:
    return random.normal(size=(4, 30, 5)) @ (np.eye(5) + 0.3 * random.normal(size=(4, 5, 5)))


@given(seeds, st.sampled_from([0.1, 0.5, 1.0]))
def test_distance_is_unchanged_when_features_are_rotated(seed: int, alpha: float) -> None:
    """Except for the ridge, which depends on each channel's variance and is negligible here."""
    random = np.random.default_rng(seed)
    vectors = features(random)
    rotation = np.linalg.qr(random.normal(size=(5, 5)))[0]
    detector = MeanShift(alpha=alpha, ridge=1e-12)
    np.testing.assert_allclose(scores(vectors @ rotation, detector), scores(vectors, detector), rtol=1e-5)


@given(seeds, st.sampled_from([0.1, 1.0]))
def test_distance_is_unchanged_when_channels_change_their_units(seed: int, alpha: float) -> None:
    random = np.random.default_rng(seed)
    vectors = features(random)
    units = random.uniform(0.3, 3.0, 5)
    detector = MeanShift(alpha=alpha, ridge=RIDGE)
    np.testing.assert_allclose(scores(vectors * units, detector), scores(vectors, detector), rtol=1e-6)


def test_a_channel_that_never_varies_still_counts_when_it_moves() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 30, 3))
    vectors[..., 1] = 7.0
    head = MeanShift().head(Moments.of(vectors))
    moved = np.array([[[0.0, 8.0, 0.0]]] * 2)
    assert distances_of(head, moved).min() > 1000 * distances_of(head, vectors).max()


def test_features_that_never_vary_are_refused() -> None:
    with pytest.raises(DegenerateFeaturesError, match="features of all images are the same"):
        pooled_target(np.zeros((2, 3, 3)), RIDGE)


def test_a_covariance_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(DegenerateFeaturesError, match="not positive definite"):
        inverse_cholesky(-np.eye(3)[None])


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, float("nan")])
def test_an_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(SettingError, match="outside"):
        MeanShift(alpha=alpha)


@pytest.mark.parametrize("averaging", [0, -3])
def test_an_averaging_region_without_cells_is_refused(averaging: int) -> None:
    with pytest.raises(SettingError, match="too small"):
        MeanShift(averaging=averaging)
