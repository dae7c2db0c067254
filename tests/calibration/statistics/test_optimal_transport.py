from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.statistics.moments import Moments
from calibration.statistics.optimal_transport import transport

PLACES, CHANNELS, IMAGES = 12, 4, 400


def vectors(random: np.random.Generator, images: int = IMAGES) -> np.ndarray:
    """Correlated vectors around a mean of each location, (locations, images, channels)."""
    mix = np.tril(np.ones((CHANNELS, CHANNELS))) / 2 + np.eye(CHANNELS)
    middle = np.random.default_rng(7).normal(scale=3.0, size=(PLACES, 1, CHANNELS))
    return middle + random.normal(size=(PLACES, images, CHANNELS)) @ mix


@pytest.mark.slow
@given(seed=st.integers(0, 2**16), shift=st.floats(-5.0, 5.0), gain=st.floats(0.5, 2.0))
def test_a_change_of_light_and_gain_is_estimated_from_other_images(seed: int, shift: float, gain: float) -> None:
    random = np.random.default_rng(seed)
    old, new = vectors(random), vectors(random) * gain + shift
    moved, truth = transport(Moments.of(old), Moments.of(new)), Moments.of(old * gain + shift)
    spread = np.sqrt(np.einsum("lii->li", truth.covariance()))
    assert np.abs((moved.mean - truth.mean) / spread).max() < 0.5
    ratio = np.einsum("lii->l", moved.scatter) / np.einsum("lii->l", truth.scatter)
    assert ratio.min() > 0.8
    assert ratio.max() < 1.25


def test_without_a_change_the_moments_hardly_move() -> None:
    old = Moments.of(vectors(np.random.default_rng(0)))
    moved = transport(old, old)
    np.testing.assert_allclose(moved.mean, old.mean, atol=1e-6)
    np.testing.assert_allclose(moved.scatter, old.scatter, rtol=1e-5, atol=1e-6)


def test_the_distribution_over_all_locations_becomes_that_of_the_new_images() -> None:
    random = np.random.default_rng(1)
    change = np.eye(CHANNELS) + 0.4 * random.normal(size=(CHANNELS, CHANNELS))
    old, new = Moments.of(vectors(random)), Moments.of(vectors(random) @ change)
    moved = transport(old, new)

    def of_all(moments: Moments) -> np.ndarray:
        apart = moments.mean - moments.mean.mean(axis=0)
        return np.asarray(moments.covariance().mean(axis=0) + apart.T @ apart / len(apart))

    np.testing.assert_allclose(moved.mean.mean(axis=0), new.mean.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(of_all(moved), of_all(new), rtol=0.02, atol=0.05)


def test_with_too_few_vectors_only_the_mean_moves() -> None:
    random = np.random.default_rng(2)
    old, new = vectors(random)[:1], 2.0 * vectors(random, 10)[:1] + 3.0
    moved = transport(Moments.of(old), Moments.of(new))
    np.testing.assert_array_equal(moved.scatter, Moments.of(old).scatter)
    np.testing.assert_allclose(moved.mean, Moments.of(new).mean)


def test_dead_channels_stay_dead() -> None:
    random = np.random.default_rng(3)
    old, new = vectors(random), vectors(random)
    old[..., 2], new[..., 2] = 0.0, 0.0
    moved = transport(Moments.of(old), Moments.of(new))
    assert np.isfinite(moved.scatter).all()
    np.testing.assert_allclose(moved.scatter[:, 2], 0.0, atol=1e-6)
