"""Thresholds, and whether their false-reject rates hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, chi2, expon, lognorm
from scipy.stats import t as student_t

from calibration.errors import SettingError
from calibration.statistics.outliers import stray_indices
from calibration.statistics.threshold import (
    highest_of_few,
    refuse_unsupported_rate,
    share_above,
    student_t_quantile,
    student_t_share_above,
    working_point,
)

if TYPE_CHECKING:
    from scipy.stats import rv_continuous

DRAWS = 300
SCORES = st.floats(0, 1e6, allow_subnormal=False)
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


PROMISED = [chi2(3), chi2(20), chi2(200), lognorm(0.25), lognorm(0.6)]
"""From chi-square of few degrees of freedom to log-normal: what scores of good parts are taken for."""


@pytest.mark.slow
@pytest.mark.parametrize("distribution", PROMISED, ids=["chi2 3", "chi2 20", "chi2 200", "narrow", "wide"])
@pytest.mark.parametrize("rate", [0.01, 0.05])
@pytest.mark.parametrize("images", [10, 20, 30, 50, 100, 300])
def test_the_mean_true_rate_is_at_most_a_fifth_above_the_promised_one(
    distribution: rv_continuous, rate: float, images: int
) -> None:
    draws = distribution.rvs((DRAWS, images), random_state=np.random.default_rng(images))
    true = [float(distribution.sf(working_point(scores, rate).threshold)) for scores in draws]
    assert np.mean(true) <= 1.2 * rate + 2 * np.std(true) / np.sqrt(DRAWS)
    assert np.mean(true) >= 0.2 * rate, "so strict a threshold finds nothing"


def test_any_power_of_the_scores_gives_the_same_threshold() -> None:
    scores = np.random.default_rng(0).chisquare(20, 60)
    for rate in (0.005, 0.3):
        assert working_point(scores**0.5, rate).threshold ** 2 == pytest.approx(working_point(scores, rate).threshold)


@pytest.mark.parametrize("images", [20, 90, 300])
@pytest.mark.parametrize("strays", [1, 2])
def test_a_stray_hardly_moves_the_threshold_and_is_named(images: int, strays: int) -> None:
    """An empty belt among good parts raised it twelvefold once."""
    scores = np.random.default_rng(images).lognormal(7.0, 0.3, images)
    clean = working_point(scores, 0.01)
    with_strays = np.append(scores, [24_337.0 + number for number in range(strays)])
    assert stray_indices(with_strays) == list(range(images, images + strays))[::-1]
    assert working_point(with_strays, 0.01).threshold == clean.threshold
    assert working_point(with_strays, 0.01).interval[1] > clean.interval[1], "a good part like it would be rejected"


def test_images_of_few_parts_prove_as_much_as_these_parts() -> None:
    """168 images of 24 parts: the scores of a part are alike."""
    random = np.random.default_rng(0)
    true, distribution = [], lognorm(0.5)
    for _ in range(DRAWS):
        parts = distribution.rvs(24, random_state=random)
        images = np.repeat(parts, 7) * random.lognormal(0.0, 0.02, 168)
        point = working_point(images, 0.01, 24)
        assert point.interval[1] >= 1 - 0.05 ** (1 / 24) - 1e-9
        true.append(distribution.sf(point.threshold))
    assert np.mean(true) <= 0.012


def test_a_second_kind_of_part_is_not_a_stray() -> None:
    random = np.random.default_rng(0)
    scores = np.append(random.lognormal(5.0, 0.2, 80), random.lognormal(9.0, 0.2, 20))
    assert stray_indices(scores) == []
    assert working_point(scores, 0.01).threshold > np.median(scores[80:])


@pytest.mark.parametrize("scores", [np.full(20, 3.5), np.zeros(12), np.append(np.zeros(12), 1e-9)], ids=str)
def test_degenerate_scores_give_a_threshold_all_the_same(scores: np.ndarray[Any, Any]) -> None:
    for rate in (0.01, 0.3):
        assert np.isfinite(working_point(scores, rate).threshold)
        assert 0 <= share_above(scores, working_point(scores, rate).threshold) <= 1


@given(st.integers(1, 300), st.floats(-30, 30))
def test_the_shares_of_students_t_are_those_of_scipy(freedom: int, value: float) -> None:
    assert student_t_share_above(value, freedom) == pytest.approx(student_t.sf(value, freedom), rel=1e-6, abs=1e-13)


@given(st.integers(1, 2000), st.floats(1e-4, 0.4))
def test_the_quantiles_of_students_t_are_those_of_scipy(freedom: int, share: float) -> None:
    assert student_t_quantile(share, freedom) == pytest.approx(student_t.isf(share, freedom), rel=1e-3)


@DISTRIBUTIONS
def test_the_true_rate_of_a_rate_below_all_images_is_inside_the_interval_too(distribution: rv_continuous) -> None:
    random = np.random.default_rng(0)
    kept = 0
    for _ in range(DRAWS):
        point = working_point(distribution.rvs(100, random_state=random), 0.001)
        assert point.method == "log-normal"
        kept += distribution.sf(point.threshold) <= point.interval[1]
    assert kept >= 0.9 * DRAWS


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(10, 400), st.lists(st.floats(1e-9, 0.5), min_size=2, max_size=8))
def test_a_lower_rate_never_gives_a_lower_threshold(seed: int, count: int, rates: list[float]) -> None:
    scores = np.random.default_rng(seed).exponential(50.0, count)
    thresholds = [working_point(scores, rate).threshold for rate in sorted(rates)]
    assert thresholds == sorted(thresholds, reverse=True)


@pytest.mark.slow
@given(st.integers(10, 600), st.floats(0.0001, 0.5))
def test_the_interval_is_that_of_clopper_and_pearson(count: int, rate: float) -> None:
    scores = np.random.default_rng(0).exponential(1.0, count)
    point = working_point(scores, rate)
    above = int((scores > point.threshold).sum())
    if above == 0:
        assert point.interval == pytest.approx((0.0, 1 - 0.05 ** (1 / count)))
        return
    expected = beta.ppf(0.025, above, count + 1 - above), beta.ppf(0.975, above + 1, count - above)
    np.testing.assert_allclose(point.interval, expected, rtol=1e-6)


@pytest.mark.slow
@given(st.integers(10, 3000), st.floats(0.001, 0.5))
def test_ten_images_or_more_lie_above_a_quantile(count: int, rate: float) -> None:
    scores = np.random.default_rng(count).exponential(1.0, count)
    point = working_point(scores, rate)
    assert (point.method == "quantile") == (rate * (count + 1) >= 10)
    if point.method == "quantile":
        assert 9 <= (scores > point.threshold).sum() <= rate * (count + 1)
    assert point.false_reject_rate == rate
    assert point.images == count


def test_the_order_of_scores_does_not_matter() -> None:
    scores = np.random.default_rng(0).exponential(1.0, 50)
    for rate in (0.001, 0.1):
        assert working_point(scores, rate) == working_point(scores[::-1], rate)


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


def test_a_chi_square_threshold_is_taken_as_it_is_and_its_interval_is_that_of_the_scores() -> None:
    scores = np.arange(1.0, 101.0)
    point = working_point(scores, 0.01, chi_square=60.5)
    assert (point.threshold, point.false_reject_rate, point.method) == (60.5, 0.01, "chi-square")
    low, high = point.interval
    assert low < 0.4 < high
    assert low > 0.3


@DISTRIBUTIONS
@pytest.mark.parametrize("rate", [0.1, 0.02, 0.005, 0.001])
def test_the_share_above_a_threshold_is_the_rate_that_it_was_made_for(distribution: rv_continuous, rate: float) -> None:
    for seed in range(20):
        scores = distribution.rvs(150, random_state=np.random.default_rng(seed))
        point = working_point(scores, rate)
        step = 1 / 151 if point.method == "quantile" else 1e-9
        assert rate - step - 1e-9 <= share_above(scores, point.threshold) <= rate + 1e-9


@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_the_share_above_is_also_the_rate_where_each_part_was_photographed_several_times(rate: float) -> None:
    scores = np.repeat(np.random.default_rng(0).lognormal(size=24), 7)
    point = working_point(scores, rate, 24)
    assert share_above(scores, point.threshold, 24) == pytest.approx(rate)
    assert share_above(scores, point.threshold) < rate - 0.001


@given(st.lists(SCORES, min_size=10, max_size=50), st.floats(0, 1e7), st.floats(1, 10))
def test_fewer_parts_are_above_a_higher_limit(scores: list[float], limit: float, times: float) -> None:
    lower, higher = (share_above(np.array(scores), each) for each in (limit, limit * times))
    assert 0 <= higher <= lower <= 1


@pytest.mark.parametrize("images", [2, 5, 9])
def test_as_many_good_parts_as_expected_are_above_the_highest_of_few(images: int) -> None:
    drawn = np.random.default_rng(0).lognormal(size=(20_000, images + 1))
    points = [highest_of_few(scores[:-1], images) for scores in drawn[:100]]
    assert {point.method for point in points} == {"highest of few"}
    assert {point.false_reject_rate for point in points} == {1 / (images + 1)}
    assert [point.threshold for point in points] == drawn[:100, :-1].max(axis=1).tolist()
    assert (drawn[:, -1] > drawn[:, :-1].max(axis=1)).mean() == pytest.approx(1 / (images + 1), rel=0.05)
    assert points[0].interval[0] == 0.0
    assert points[0].interval[1] == pytest.approx(1 - 0.05 ** (1 / images))
