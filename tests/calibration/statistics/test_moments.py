"""Moments are the same however the data is split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.errors import DegenerateFeaturesError
from calibration.statistics.moments import Moments, merged

Vectors = NDArray[np.float64]


@st.composite
def vectors(draw: st.DrawFn) -> Vectors:
    """(locations, n, d), far from zero and of unlike scales, as features are."""
    shape = draw(st.integers(1, 3)), draw(st.integers(2, 25)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    offset, scale = draw(st.floats(-100, 100)), draw(st.floats(1e-3, 1e3))
    return np.asarray(offset + scale * random.normal(size=shape) * random.uniform(0.1, 10, shape[2]))


def assert_same(one: Moments, other: Moments) -> None:
    """Equal to 1e-10 of the largest number of each kind at each location."""
    assert one.count == other.count
    for left, right in ((one.mean, other.mean), (one.scatter, other.scatter)):
        assert np.abs(left - right).max() <= 1e-10 * np.abs(right).max()


@pytest.mark.slow
@given(vectors(), st.data())
def test_any_split_merged_in_any_order_equals_one_fit(values: Vectors, data: st.DataObject) -> None:
    count = values.shape[1]
    order = data.draw(st.permutations(range(count)))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    parts = [Moments.of(part) for part in np.split(values[:, order], cuts, axis=1)]
    assert_same(merged(data.draw(st.permutations(parts))), Moments.of(values))


@pytest.mark.slow
@given(vectors(), st.data())
def test_batches_one_after_another_equal_one_fit(values: Vectors, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, values.shape[1]), max_size=4)))
    streamed = Moments.empty(values.shape[0], values.shape[2])
    for batch in np.split(values, cuts, axis=1):
        streamed.update(batch)
    assert_same(streamed, Moments.of(values))


@given(vectors())
def test_mean_and_covariance_are_those_of_numpy(values: Vectors) -> None:
    moments = Moments.of(values)
    for location, mean, covariance in zip(values, moments.mean, moments.covariance(), strict=True):
        np.testing.assert_allclose(mean, location.mean(axis=0), rtol=1e-10, atol=1e-12)
        expected = np.atleast_2d(np.cov(location, rowvar=False))
        np.testing.assert_allclose(covariance, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


@pytest.mark.slow
@given(vectors())
def test_a_file_gives_back_the_very_same_moments(values: Vectors) -> None:
    moments = Moments.of(values)
    arrays: dict[str, Any] = dict(moments.packed())
    again = Moments.unpacked(arrays)
    assert again.count == moments.count
    np.testing.assert_array_equal(again.mean, moments.mean)
    np.testing.assert_allclose(again.scatter, moments.scatter, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(again.scatter, again.scatter.transpose(0, 2, 1))


def test_a_mean_of_a_million_costs_no_digits() -> None:
    values = np.random.default_rng(0).normal(size=(1, 1000, 3))
    far = Moments.empty(1, 3)
    for batch in np.split(values + 1e6, 10, axis=1):
        far.update(batch)
    np.testing.assert_allclose(far.covariance(), Moments.of(values).covariance(), rtol=1e-7, atol=1e-7)


def test_float32_features_are_summed_in_float64() -> None:
    values = (1000 + np.random.default_rng(0).normal(size=(2, 500, 4))).astype(np.float32)
    expected = [np.cov(location.astype(np.float64), rowvar=False) for location in values]
    np.testing.assert_allclose(Moments.of(values).covariance(), expected, rtol=1e-9, atol=1e-12)


def test_merging_leaves_the_parts_as_they_were() -> None:
    part = Moments.of(np.random.default_rng(0).normal(size=(2, 6, 3)))
    mean, scatter = part.mean.copy(), part.scatter.copy()
    merged([part, part])
    assert part.count == 6
    np.testing.assert_array_equal(part.mean, mean)
    np.testing.assert_array_equal(part.scatter, scatter)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_and_change_nothing(poison: float) -> None:
    moments = Moments.of(np.random.default_rng(0).normal(size=(2, 6, 3)))
    before = moments.packed()["scatter"].copy()
    poisoned = np.zeros((2, 4, 3))
    poisoned[1, 2, 0] = poison
    with pytest.raises(DegenerateFeaturesError, match="not finite"):
        moments.update(poisoned)
    assert moments.count == 6
    np.testing.assert_array_equal(moments.packed()["scatter"], before)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_covariance(count: int) -> None:
    with pytest.raises(DegenerateFeaturesError, match=f"at least two images, got {count}"):
        Moments.of(np.ones((2, count, 3))).covariance()
