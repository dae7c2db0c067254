"""The threshold of Gaussian features: exact for one distance, simulated for many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from calibration.errors import SettingError
from calibration.statistics.chi_square import (
    chi_square_quantile,
    chi_square_share_above,
    refuse_without_law,
    simulated_threshold,
)
from calibration.statistics.scores import chi_square_scores


@given(st.integers(1, 2000), st.floats(1e-6, 0.999))
def test_share_and_quantile_are_those_of_scipy(freedom: int, share: float) -> None:
    value = chi_square_quantile(share, freedom)
    assert value == pytest.approx(chi2(freedom).isf(share), rel=1e-7, abs=1e-9)
    assert chi_square_share_above(value, freedom) == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize("rate", [0.5, 0.05, 0.01])
def test_the_simulated_threshold_is_the_quantile_of_the_distribution(rate: float) -> None:
    threshold = simulated_threshold(lambda random, count: random.chisquare(50, count), rate)
    assert threshold == pytest.approx(chi2(50).isf(rate), rel=0.02)


def test_the_largest_of_many_locations_is_distributed_as_the_largest_of_independent_ones() -> None:
    threshold = simulated_threshold(chi_square_scores((30, 5, 5), np.inf), 0.05)
    assert threshold == pytest.approx(chi2(30).ppf(0.95 ** (1 / 25)), rel=0.02)


def test_a_rate_that_is_too_low_to_simulate_has_no_threshold() -> None:
    assert simulated_threshold(chi_square_scores((30, 5, 5), np.inf), 1e-5) is None


def test_a_threshold_that_there_is_no_law_for_is_refused() -> None:
    with pytest.raises(SettingError, match="no chi-square law"):
        refuse_without_law(None, None, 0.01)
    with pytest.raises(SettingError, match=r"no threshold for 0\.010%"):
        refuse_without_law(chi_square_scores((30, 5, 5), np.inf), None, 1e-4)
    refuse_without_law(chi_square_scores((30, 5, 5), np.inf), 3.0, 0.01)
