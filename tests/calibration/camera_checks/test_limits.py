from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.camera_checks.limits import (
    FALSE_ALARM_RATE,
    TOO_DIFFERENT,
    TOO_FEW,
    Bounds,
    separated_limit,
    tail_limit,
)

WIDE = Bounds(-math.inf, math.inf)


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


@pytest.mark.parametrize("law", ["normal", "exponential", "uniform", "logistic", "gumbel"])
def test_new_good_frames_exceed_the_limit_no_more_often_than_stated(law: str) -> None:
    draws = 200_000
    for seed in range(5):
        random = np.random.default_rng(seed)
        good, new = getattr(random, law)(size=300), getattr(random, law)(size=draws)
        assert (new > tail_limit(good, WIDE, sequential=False).value).sum() <= 3 * FALSE_ALARM_RATE * draws


def test_fewer_frames_give_a_wider_limit() -> None:
    limits = [
        np.median([tail_limit(normal(count, seed), WIDE, sequential=False).value for seed in range(50)])
        for count in (20, 100, 1000)
    ]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > 1.5 * limits[2]


def test_neighbours_in_a_video_count_for_less() -> None:
    values = normal(200)
    assert tail_limit(values, WIDE, sequential=True).value > tail_limit(values, WIDE, sequential=False).value


def test_identical_good_frames_give_the_lower_bound() -> None:
    limit = tail_limit(np.full(50, 3.0), Bounds(3.5, 4.0), sequential=False)
    assert (limit.value, limit.note, limit.is_on) == (3.5, "", True)


def test_a_limit_beyond_the_upper_bound_is_the_bound_with_a_note() -> None:
    limit = tail_limit(normal(20), Bounds(0.0, 4.0), sequential=False)
    assert (limit.value, limit.note) == (4.0, TOO_FEW)


def test_a_check_is_off_if_good_frames_come_near_the_bound() -> None:
    limit = separated_limit(np.array([0.0] * 30 + [0.11]), Bounds(0.1, 0.2), sequential=False)
    assert math.isnan(limit.value)
    assert (limit.note, limit.is_on) == (TOO_DIFFERENT, False)


@pytest.mark.slow
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=60), st.booleans())
def test_no_good_frame_comes_more_than_half_way_to_a_separated_limit(values: list[float], sequential: bool) -> None:  # noqa: FBT001 - drawn
    limit = separated_limit(np.array(values), Bounds(-10, 30), sequential=sequential)
    middle = float(np.median(values))
    assert max(values) - middle <= (limit.value - middle) / 2 + 1e-9


@pytest.mark.slow
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.booleans())
def test_a_limit_keeps_its_bounds(values: list[float], sequential: bool) -> None:  # noqa: FBT001 - drawn
    assert -1 <= tail_limit(np.array(values), Bounds(-1, 1), sequential=sequential).value <= 1
