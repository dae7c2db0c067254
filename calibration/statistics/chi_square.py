"""The threshold that follows from Gaussian features, whose squared distances are chi-square."""

from __future__ import annotations

from math import erfc, exp, lgamma, log, sqrt
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from calibration.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    ScoreSampler: TypeAlias = Callable[[np.random.Generator, int], NDArray[np.float64]]  # draws this number of scores

_DRAWS, _ENOUGH_DRAWS = 10_000, 10


def simulated_threshold(sampler: ScoreSampler, share: float) -> float | None:
    """The score that a share of drawn ones exceeds; None if it is too low to simulate."""
    if share * _DRAWS < _ENOUGH_DRAWS:
        return None
    random = np.random.default_rng(0)
    drawn = np.concatenate([sampler(random, _DRAWS // 20) for _ in range(20)])
    return float(np.quantile(drawn, 1.0 - share))


def chi_square_quantile(share: float, freedom: int) -> float:
    """The value that a share in (0, 1) of chi-square exceeds."""
    return exceeded_by(share, lambda value: chi_square_share_above(value, freedom), float(freedom))


def exceeded_by(share: float, share_above: Callable[[float], float], guess: float) -> float:
    """The value, 0 or more, that this share of a distribution exceeds, by bisection from a guess above 0."""
    low, high = 0.0, guess
    while share_above(high) > share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share_above(middle) > share else (low, middle)
    return (low + high) / 2


def chi_square_share_above(value: float, freedom: int) -> float:
    """P(X > value), value > 0, for chi-square with whole degrees of freedom (Abramowitz and Stegun 1964, 26.4.4, 5)."""
    half = value / 2
    total, first = (erfc(sqrt(half)), 3) if freedom % 2 else (exp(-half), 4)
    powers = (degrees / 2 - 1 for degrees in range(first, freedom + 1, 2))
    return total + sum(exp(power * log(half) - half - lgamma(power + 1)) for power in powers)


def refuse_without_law(law: object, threshold: float | None, false_reject_rate: float) -> None:
    """Raise SettingError unless there is a threshold by chi-square.

    Args:
        law: Gives the threshold; None if the method has none.
        threshold: The one for this false-reject rate.
        false_reject_rate: In (0, 0.5].
    """
    if law is None:
        raise SettingError(
            what="the scores of this detector have no chi-square law, from which a threshold would follow",
            remedy="leave out --threshold-rule chi-square, or give --detector gaussian with the Mahalanobis distance, "
            "padim, or mean_shift with one mode",
        )
    if threshold is None:
        raise SettingError(
            what=f"the law of these scores is simulated, which gives no threshold for {false_reject_rate:.3%}",
            remedy=f"give --false-reject-rate {_ENOUGH_DRAWS / _DRAWS} or more",
        )
