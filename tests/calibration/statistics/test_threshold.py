"""Thresholds, and whether their false-reject rates hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, chi2, expon

from calibration.errors import SettingError
from calibration.statistics.scores import chi_square_scores
from calibration.statistics.threshold import chi_square_threshold, refuse_unsupported_rate, share_above, working_point

if TYPE_CHECKING:
    from scipy.stats import rv_continuous

DRAWS = 300
DISTRIBUTIONS = pytest.mark.parametrize("distribution", [expon(scale=40.0), chi2(79)], ids=["exponential", "chi2"])


@pytest.mark.slow
@DISTRIBUTIONS
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_true_rate_is_inside_the_interval_nine_times_in_ten(distribution: rv_continuous, rate: float) -> None:
    random = np.random.default_rng(0)
    kept = 0
    for _ in range(DRAWS):
        point = working_point(distribution.rvs(120, random_state=random), rate)
        low, high = point.interval
        kept += low <= distribution.sf(point.threshold) <= high
    assert kept >= 0.9 * DRAWS


@DISTRIBUTIONS
def test_the_promised_rate_is_the_mean_of_the_true_ones(distribution: rv_continuous) -> None:
    random = np.random.default_rng(0)
    rates = [
        distribution.sf(working_point(distribution.rvs(99, random_state=random), 0.05).threshold) for _ in range(DRAWS)
    ]
    assert np.mean(rates) == pytest.approx(0.05, rel=0.1)


@DISTRIBUTIONS
def test_the_true_rate_beyond_the_highest_score_is_inside_the_interval_too(distribution: rv_continuous) -> None:
    random = np.random.default_rng(0)
    kept = 0
    for _ in range(DRAWS):
        point = working_point(distribution.rvs(100, random_state=random), 0.001)
        assert point.method == "tail"
        kept += distribution.sf(point.threshold) <= point.interval[1]
    assert kept >= 0.9 * DRAWS


@DISTRIBUTIONS
def test_the_tail_has_the_right_order_of_magnitude_beyond_all_scores(distribution: rv_continuous) -> None:
    random = np.random.default_rng(0)
    rates = [
        distribution.sf(working_point(distribution.rvs(200, random_state=random), 0.001).threshold)
        for _ in range(DRAWS)
    ]
    assert 0.001 / 4 < np.median(rates) < 0.001 * 4


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(10, 400), st.lists(st.floats(1e-9, 0.5), min_size=2, max_size=8))
def test_a_lower_rate_never_gives_a_lower_threshold(seed: int, count: int, rates: list[float]) -> None:
    scores = np.random.default_rng(seed).exponential(50.0, count)
    thresholds = [working_point(scores, rate).threshold for rate in sorted(rates)]
    assert thresholds == sorted(thresholds, reverse=True)


@given(st.integers(0, 2**32), st.integers(10, 400), st.floats(0.001, 0.99))
def test_a_rate_that_no_image_can_show_is_extrapolated_beyond_the_highest_score(
    seed: int, count: int, share: float
) -> None:
    scores = np.random.default_rng(seed).exponential(50.0, count)
    point = working_point(scores, share / (count + 1))
    assert point.method == "tail"
    assert point.threshold >= scores.max()
    assert np.isfinite(point.threshold)
    assert point.interval == pytest.approx((0.0, 1 - 0.05 ** (1 / count)))


def test_the_tail_reaches_well_beyond_the_highest_score_of_most_draws() -> None:
    random = np.random.default_rng(0)
    draws = [random.exponential(50.0, 100) for _ in range(100)]
    assert np.median([working_point(scores, 1e-5).threshold / scores.max() for scores in draws]) > 1.3


@pytest.mark.slow
@given(st.integers(10, 600), st.floats(0.0001, 0.5))
def test_the_interval_is_that_of_the_beta_distribution(count: int, rate: float) -> None:
    above = int(rate * (count + 1))
    point = working_point(np.random.default_rng(0).exponential(1.0, count), rate)
    if above == 0:
        assert point.method == "tail"
        return
    assert point.method == "quantile"
    expected = beta.ppf([0.025, 0.975], above, count + 1 - above)
    np.testing.assert_allclose(point.interval, expected, rtol=1e-6)


@pytest.mark.slow
@given(st.integers(10, 300), st.floats(0.005, 0.5))
def test_as_many_scores_lie_above_the_threshold_as_the_rate_allows(count: int, rate: float) -> None:
    scores = np.random.default_rng(count).exponential(1.0, count)
    point = working_point(scores, rate)
    assert (scores > point.threshold).sum() <= rate * (count + 1)
    assert point.false_reject_rate == rate
    assert point.images == count


def test_the_order_of_scores_does_not_matter() -> None:
    scores = np.random.default_rng(0).exponential(1.0, 50)
    for rate in (0.001, 0.1):
        assert working_point(scores, rate) == working_point(scores[::-1], rate)


@pytest.mark.parametrize("rate", [0.001, 0.1])
def test_scores_that_are_all_the_same_give_that_score(rate: float) -> None:
    assert working_point(np.full(20, 3.5), rate).threshold == pytest.approx(3.5)


@pytest.mark.parametrize("rate", [0.0, -0.1, 0.51, 1.0, float("nan"), float("inf")])
def test_rates_outside_their_range_are_refused(rate: float) -> None:
    with pytest.raises(SettingError, match="false-reject rate"):
        working_point(np.ones(20), rate)


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 10), (0.001, 100), (0.0005, 200), (0.3, 1)])
def test_a_rate_that_so_few_images_cannot_support_is_refused_with_the_number_needed(rate: float, needed: int) -> None:
    if needed > 1:
        with pytest.raises(SettingError, match=rf"(?s){needed - 1} good images cannot support.*give {needed} or more"):
            refuse_unsupported_rate(rate, needed - 1)
        with pytest.raises(SettingError, match=f"--false-reject-rate {0.1 / (needed - 1):.2g} or more"):
            refuse_unsupported_rate(rate, needed - 1)
    refuse_unsupported_rate(rate, needed)


def test_the_rate_that_the_refusal_names_is_accepted() -> None:
    for images in range(10, 300):
        refuse_unsupported_rate(float(f"{0.1 / images * 1.05:.2g}"), images)


@pytest.mark.parametrize("rate", [0.5, 0.05, 0.01])
def test_the_chi_square_threshold_is_the_quantile_of_the_distribution(rate: float) -> None:
    threshold = chi_square_threshold(lambda random, count: random.chisquare(50, count), rate)
    assert threshold == pytest.approx(chi2(50).isf(rate), rel=0.02)


def test_the_largest_of_many_locations_is_distributed_as_the_largest_of_independent_ones() -> None:
    threshold = chi_square_threshold(chi_square_scores((30, 5, 5), np.inf), 0.05)
    assert threshold == pytest.approx(chi2(30).ppf(0.95 ** (1 / 25)), rel=0.02)


def test_there_is_no_chi_square_threshold_without_a_sampler_or_for_a_rate_too_low_to_simulate() -> None:
    assert chi_square_threshold(None, 0.01) is None
    assert chi_square_threshold(chi_square_scores((30, 5, 5), np.inf), 1e-5) is None


@DISTRIBUTIONS
@pytest.mark.parametrize("rate", [0.1, 0.02, 0.005, 0.001])
def test_the_share_above_a_threshold_is_the_rate_that_it_was_made_for(distribution: rv_continuous, rate: float) -> None:
    for seed in range(20):
        scores = distribution.rvs(150, random_state=np.random.default_rng(seed))
        point = working_point(scores, rate)
        step = 1 / 151 if point.method == "quantile" else 0.0
        # A tail that ends before the highest score leaves the threshold there.
        tight = point.threshold > scores.max() or point.method == "quantile"
        assert not tight or rate - step - 1e-9 <= share_above(scores, point.threshold) <= rate + 1e-9


@given(st.lists(st.floats(0, 1e6), min_size=10, max_size=50), st.floats(0, 1e7), st.floats(1, 10))
def test_fewer_parts_are_above_a_higher_limit(scores: list[float], limit: float, times: float) -> None:
    lower, higher = (share_above(np.array(scores), each) for each in (limit, limit * times))
    assert 0 <= higher <= lower <= 1
