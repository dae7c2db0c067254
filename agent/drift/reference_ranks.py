"""Compares statistics with calibration's good images by ranks, without assumptions about their distribution.

A share of new values is compared with a limit that allows for a small calibration sample. Each value counts between 0
and 1, however extreme it is.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from calibration.statistics.threshold import share_above_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64: TypeAlias = NDArray[np.float64]

SIDES = 9
"""Number of comparisons: four statistics in two directions, and high scores."""
_LUCKY = 1.0 - 0.05 / SIDES  # with 95 % probability the sample misleads none of them (Bonferroni)
_LUCKY_Z = NormalDist().inv_cdf(_LUCKY)
LEAST_BEYOND = 0.03
"""Least difference of the mean rank that counts as drift, even if thousands of images would prove a smaller one."""
HIGH = 0.2
"""Share of good images whose score counts as high."""
LEAST_HIGH = 0.25
"""Least share of high scores that counts as drift; a few defective parts stay below."""
HIGHEST_LIMIT = 0.9
"""With a higher limit there are too few good images, or they are too much like their neighbours."""
_WINDOW = 5.0
_UPPER_Z = 1.645


class ReferenceRanks:
    """Ranks new values among those of the good images.

    The mean rank of new values is the probability that one exceeds a random value of calibration: 0.5 if nothing has
    changed. For calibration's own distribution, whatever it is, this is the mean of n uniform numbers, with a standard
    deviation of sqrt(1 / (12 n)).

    Args:
        good: Values of the good images in their order, (n,), at least one.
        tolerance: A difference up to this counts as unchanged.
        sequential: The images are successive frames of a video.

    Attributes:
        typical: Median of the good images.
        limit: Mean rank that new values exceed only if they have changed.
    """

    def __init__(self, good: Float64, tolerance: float, *, sequential: bool) -> None:
        self._ordered = np.sort(good)
        self._tolerance = tolerance
        self.typical = float(np.median(good))
        count = effective_count(good, sequential=sequential)
        self.limit = 0.5 + max(LEAST_BEYOND, _LUCKY_Z / math.sqrt(12.0 * count))

    def higher(self, values: Float64) -> float:
        """Mean rank, 0 to 1, of values that must be higher by more than the tolerance."""
        return self._mean_rank(values - self._tolerance)

    def lower(self, values: Float64) -> float:
        """The same downwards: 1 if all values are lower than any of calibration."""
        return 1.0 - self._mean_rank(values + self._tolerance)

    def _mean_rank(self, values: Float64) -> float:
        return float(_ranks(values, self._ordered).mean() / (2 * len(self._ordered)))


class HighScores:
    """Counts new scores above the highest fifth of calibration's.

    Their share rises before the rejects do, even if the median stays. For calibration's own distribution, the share
    above its k-th highest of n is Beta(k, n + 1 - k).

    Args:
        good: Scores of the good images in their order, (n,), at least one.
        sequential: The images are successive frames of a video.

    Attributes:
        typical: A score above it is high.
        limit: Share of high scores that new ones exceed only if they have changed.
    """

    def __init__(self, good: Float64, *, sequential: bool) -> None:
        self.typical = high_quantile(good)
        count = int(effective_count(good, sequential=sequential))
        self.limit = max(LEAST_HIGH, share_above_quantile(count, _high_of(count), _LUCKY))

    def share(self, scores: Float64) -> float:
        """Share of high scores."""
        return float((scores > self.typical).mean())


def high_quantile(scores: Float64) -> float:
    """The lowest of the highest fifth of scores."""
    return float(np.sort(scores)[-_high_of(len(scores))])


def _high_of(count: int) -> int:
    return max(1, int(HIGH * (count + 1)))


def effective_count(values: Float64, *, sequential: bool) -> float:
    """Number of independent values that these are worth: n / (1 + 2 sum of the autocorrelations of their ranks).

    The sum ends at five times the correlation length (Madras and Sokal 1988, appendix C). For a video the upper end of
    the length's confidence interval is used, because a short video measures it badly.
    """
    count = len(values)
    ordered = np.sort(values)
    if ordered[0] == ordered[-1]:  # a still scene without noise
        return float(count)
    ranks = _ranks(values, ordered)
    spectrum = np.abs(np.fft.rfft(ranks - ranks.mean(), 2 * count)) ** 2
    correlation = np.fft.irfft(spectrum)[:count]
    lengths = 2.0 * np.cumsum(correlation / correlation[0]) - 1.0
    far_enough = np.arange(count) >= _WINDOW * lengths
    length = max(1.0, float(lengths[np.argmax(far_enough)] if far_enough.any() else lengths.max()))
    if sequential:
        length *= 1.0 + _UPPER_Z * math.sqrt(2.0 * (2.0 * _WINDOW * length + 1.0) / count)
    return count / length


def _ranks(values: Float64, ordered: Float64) -> NDArray[np.intp]:
    """Twice the number of smaller values, where an equal one counts half."""
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
