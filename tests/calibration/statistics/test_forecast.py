"""What of synthetic defects is found, from their scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.statistics.forecast import Forecast, _rising
from calibration.statistics.threshold import WorkingPoint, highest_of_few, working_point

GOOD = np.exp(np.random.default_rng(0).normal(size=200))


def forecast(shares: dict[int, float], *, each: int = 20, rate: float = 0.05) -> Forecast:
    """Defects, of each size this share above the threshold."""
    point = working_point(GOOD, rate)
    scores = [
        point.threshold * (2.0 if number < round(share * each) else 0.5)
        for share in shares.values()
        for number in range(each)
    ]
    kinds = np.array(["crack", "texture"] * (len(scores) // 2))
    return Forecast(kinds, np.repeat(list(shares), each), np.array(scores), GOOD, point)


def test_the_smallest_size_is_interpolated_over_the_logarithm() -> None:
    assert forecast({8: 0.0, 16: 0.8, 32: 1.0}).smallest_px == pytest.approx(16 * 2**0.5)


def test_the_smallest_size_is_the_smallest_drawn_where_all_are_found() -> None:
    assert forecast({8: 0.9, 16: 1.0}).smallest_px == 8


def test_there_is_no_smallest_size_where_one_in_five_of_the_largest_is_missed() -> None:
    assert forecast({8: 0.0, 16: 0.5, 32: 0.8}).smallest_px is None


def test_one_size_found_less_than_a_smaller_one_is_taken_together_with_it() -> None:
    """1.0 and 0.9 become 0.95 both, so that nine in ten are reached between 8 and 16."""
    smallest = forecast({8: 0.0, 16: 1.0, 32: 0.9, 64: 1.0}).smallest_px
    assert smallest == pytest.approx(8 * 2 ** (0.9 / 0.95))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_the_isotonic_regression_rises_and_keeps_the_mean(shares: list[float]) -> None:
    rising = _rising(shares)
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(rising))
    assert np.mean(rising) == pytest.approx(np.mean(shares), abs=1e-9)
    assert _rising(rising) == pytest.approx(rising)


def test_shares_are_given_by_size_by_kind_and_of_all() -> None:
    whole = forecast({8: 0.0, 16: 0.5, 32: 1.0})
    assert whole.sizes == [8, 16, 32]
    assert whole.found() == 0.5
    assert whole.found(sizes=[16]) == 0.5
    assert whole.found(sizes=[32], kind="crack") == 1.0
    assert whole.largest_found == 1.0


def test_the_curve_rises_with_the_false_rejects_through_the_threshold() -> None:
    random = np.random.default_rng(1)
    point = working_point(GOOD, 0.02)
    scores = 3 * np.exp(random.normal(size=500))
    whole = Forecast(np.repeat("crack", 500), np.repeat(8, 500), scores, GOOD, point)
    rates = whole.usual_rates()
    curve = whole.curve(rates)
    assert len(curve) == 5
    assert 0.02 in rates
    assert [each.found for each in curve] == sorted(each.found for each in curve)
    assert curve[rates.index(0.02)].found == whole.found()
    assert curve[0].found < curve[-1].found


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.01, (0.001, 0.005, 0.01, 0.02, 0.05)), (0.5, (0.02, 0.05, 0.1, 0.2, 0.5))]
)
def test_the_rates_are_round_ones_around_that_of_the_threshold(rate: float, expected: tuple[float, ...]) -> None:
    assert forecast({8: 1.0}, rate=rate).usual_rates() == pytest.approx(list(expected))


def test_no_rate_is_shown_that_the_images_or_parts_cannot_support() -> None:
    point = WorkingPoint(3.0, 0.02, (0.0, 0.1), "log-normal", 200, parts=12)
    few = Forecast(np.array(["crack"]), np.array([8]), np.array([4.0]), GOOD, point)
    assert min(few.usual_rates()) == 0.01


@pytest.mark.parametrize("rate", [0.3, 0.1, 0.02, 0.005])
def test_a_threshold_for_a_rate_rejects_that_share_of_good_parts(rate: float) -> None:
    assert forecast({8: 1.0}).rejected(working_point(GOOD, rate).threshold) == pytest.approx(rate, abs=1 / 201)


def test_no_threshold_promises_less_than_the_images_support() -> None:
    whole = forecast({8: 1.0})
    assert whole.rejected(1e9) == whole.lowest_rate == 0.1 / 200


def test_of_a_handful_of_images_no_share_is_said() -> None:
    few = Forecast(np.array(["crack"]), np.array([8]), np.array([4.0]), GOOD[:3], highest_of_few(GOOD[:3], 3))
    assert few.rejected(1.0) is None
