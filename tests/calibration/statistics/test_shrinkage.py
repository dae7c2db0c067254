"""Sums from which the covariance of Ledoit and Wolf follows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.errors import DegenerateFeaturesError
from calibration.statistics import shrinkage
from calibration.statistics.shrinkage import ShrinkageSums

sklearn_covariance = pytest.importorskip("sklearn.covariance", reason="an extra: pip install --editable '.[evaluate]'")

Float64 = NDArray[np.float64]
seeds = st.integers(0, 2**32)


def vectors(seed: int, count: int, channels: int, offset: float) -> Float64:
    """Correlated, and of unlike scales."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels, channels)) * random.uniform(0.1, 3.0, channels)
    return np.asarray(offset + random.normal(size=(count, channels)) @ mixing)


@given(seeds, st.integers(3, 60), st.integers(2, 12), st.floats(-50, 50), st.floats(-3, 3))
def test_the_covariance_is_that_of_scikit_learn(
    seed: int, count: int, channels: int, offset: float, beside: float
) -> None:
    """Around any origin near the mean."""
    good = vectors(seed, count, channels, offset)
    expected, share = sklearn_covariance.ledoit_wolf(good)
    sums = ShrinkageSums.around(good.mean(axis=0) + beside)
    for part in np.array_split(good, 3):
        sums.update(part)
    seen, seen_share = sums.shrunk_covariance()
    assert seen_share == pytest.approx(share, abs=1e-8)
    np.testing.assert_allclose(seen, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


@given(seeds, st.integers(3, 30), st.integers(1, 30), st.integers(2, 8))
def test_sums_without_a_part_are_those_of_the_others(seed: int, others: int, part: int, channels: int) -> None:
    good = vectors(seed, others + part, channels, 5.0)
    total, of_part, of_others = (ShrinkageSums.around(good.mean(axis=0)) for _ in range(3))
    total.update(good)
    of_part.update(good[others:])
    of_others.update(good[:others])
    seen, expected = (sums.shrunk_covariance() for sums in (total.without(of_part), of_others))
    assert seen[1] == pytest.approx(expected[1], abs=1e-8)
    np.testing.assert_allclose(seen[0], expected[0], rtol=1e-7, atol=1e-9 * np.abs(expected[0]).max())


def test_blocks_of_channels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    good = vectors(3, 40, 11, 1.0)
    results = []
    for block in (512, 4):
        monkeypatch.setattr(shrinkage, "_BLOCK", block)
        sums = ShrinkageSums.around(np.zeros(11))
        sums.update(good)
        results.append(sums.shrunk_covariance()[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-12)
    np.testing.assert_array_equal(results[1], results[1].T)


def test_vectors_that_are_all_alike_have_no_covariance() -> None:
    sums = ShrinkageSums.around(np.ones(3))
    sums.update(np.ones((9, 3)))
    covariance, share = sums.shrunk_covariance()
    assert not covariance.any()
    assert share == 1.0


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DegenerateFeaturesError, match="not finite"):
        ShrinkageSums.around(np.zeros(2)).update(np.array([[1.0, np.nan]]))
