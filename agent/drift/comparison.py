"""One statistic held against that of calibration's good images, by ranks: nothing is assumed of its distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64: TypeAlias = NDArray[np.float64]

UNLUCKY_Z = 2.5
"""Calibration's sample misleads eight comparisons by no more than this with 95 % probability (Bonferroni)."""
LEAST_BEYOND = 0.03
"""Less than this is no drift even where thousands of images would show it."""
_FARTHEST = 0.9
_WINDOW = 5.0
_HALF = 0.5


class Comparison:
    """How new values rank among those of the good images.

    The mean rank of new values is the probability that one is above a random one of calibration: 0.5 where nothing has
    changed. For those of calibration itself it is the mean of n uniform numbers, whatever the distribution, and so
    misses 0.5 by a standard deviation of sqrt(1 / (12 n)); the limits leave room for that. Each value counts between
    0 and 1, however far out it is.

    Args:
        good: Of the good images, in their order, (n,), 1 or more.
        tolerance: So much higher or lower is still the same.

    Attributes:
        typical: Median of the good images.
        limit: Mean rank that new values exceed only if they have changed.
    """

    def __init__(self, good: Float64, tolerance: float) -> None:
        self._ordered = np.sort(good)
        self._tolerance = tolerance
        self.typical = float(np.median(good))
        self.limit = _HALF + max(LEAST_BEYOND, UNLUCKY_Z / math.sqrt(12.0 * independent(good)))

    @property
    def can_tell(self) -> bool:
        """Whether the good images are enough, and different enough from their neighbours."""
        return self.limit <= _FARTHEST

    def higher(self, values: Float64) -> float:
        """Mean rank, 0 to 1, of values that must be higher by more than the tolerance."""
        return self._mean_rank(values - self._tolerance)

    def lower(self, values: Float64) -> float:
        """The same downwards: 1 where all are lower than any of calibration."""
        return 1.0 - self._mean_rank(values + self._tolerance)

    def _mean_rank(self, values: Float64) -> float:
        return float(_ranks(values, self._ordered).mean() / (2 * len(self._ordered)))


def independent(values: Float64) -> float:
    """How many independent values these neighbours are worth: n / (1 + 2 sum of the autocorrelations of their ranks).

    Summed as far as five times the result (Sokal 1989); n at the most.

    Args:
        values: In order of time, (n,).
    """
    count = len(values)
    ordered = np.sort(values)
    ranks = _ranks(values, ordered)
    spectrum = np.abs(np.fft.rfft(ranks - ranks.mean(), 2 * count)) ** 2
    correlation = np.fft.irfft(spectrum)[:count]
    if ordered[0] == ordered[-1]:  # a still life without noise
        return float(count)
    alike = 2.0 * np.cumsum(correlation / correlation[0]) - 1.0
    far_enough = np.arange(count) >= _WINDOW * alike
    return count / max(1.0, float(alike[np.argmax(far_enough)] if far_enough.any() else alike.max()))


def _ranks(values: Float64, ordered: Float64) -> NDArray[np.intp]:
    """Twice the number of those below, where each that is the same counts half."""
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
