"""Statistics held against those of calibration's good images, by ranks: nothing is assumed of their distribution.

A share of new values is compared with a limit that leaves room for calibration's sample being small. Each value counts
between 0 and 1, however far out it is.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from calibration.statistics.threshold import share_above_upper_bound

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64: TypeAlias = NDArray[np.float64]

SIDES = 9
"""Comparisons: four statistics in two directions, and high scores."""
_LUCKY = 1.0 - 0.05 / SIDES  # none is misled by calibration's sample with 95 % probability (Bonferroni)
_LUCKY_Z = NormalDist().inv_cdf(_LUCKY)
LEAST_BEYOND = 0.03
"""Of the mean rank: less is no drift even where thousands of images would show it."""
HIGH = 0.2
"""Share of good images whose score counts as high."""
LEAST_HIGH = 0.25
"""The same of high scores; a few defective parts give no more."""
_FARTHEST = 0.9
_WINDOW = 5.0
_UPPER_Z = 1.645


class ReferenceRanks:
    """How new values rank among those of the good images.

    The mean rank of new values is the probability that one is above a random one of calibration: 0.5 where nothing has
    changed. Of calibration's own distribution it is the mean of n uniform numbers, whatever that distribution is, and
    so misses 0.5 by a standard deviation of sqrt(1 / (12 n)).

    Args:
        good: Of the good images, in their order, (n,), 1 or more.
        tolerance: So much higher or lower is still the same.
        sequential: The images are neighbours in a video.

    Attributes:
        typical: Median of the good images.
        limit: Mean rank that new values exceed only if they have changed.
    """

    def __init__(self, good: Float64, tolerance: float, *, sequential: bool) -> None:
        self._ordered = np.sort(good)
        self._tolerance = tolerance
        self.typical = float(np.median(good))
        count = independent(good, sequential=sequential)
        self.limit = 0.5 + max(LEAST_BEYOND, _LUCKY_Z / math.sqrt(12.0 * count))

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


class HighScores:
    """How many of the new scores are as high as the highest fifth of calibration's.

    More of them come before more rejects, also where the median stays. Of calibration's own distribution the share
    above its k-th highest of n is Beta(k, n + 1 - k).

    Args:
        good: Scores of the good images, in their order, (n,), 1 or more.
        sequential: The images are neighbours in a video.

    Attributes:
        typical: A score above it is high.
        limit: Share of high ones that new scores exceed only if they have changed.
    """

    def __init__(self, good: Float64, *, sequential: bool) -> None:
        self.typical = high_quantile(good)
        count = int(independent(good, sequential=sequential))
        self.limit = max(LEAST_HIGH, share_above_upper_bound(count, _high_of(count), _LUCKY))

    @property
    def can_tell(self) -> bool:
        """Whether the good images are enough, and different enough from their neighbours."""
        return self.limit <= _FARTHEST

    def share(self, scores: Float64) -> float:
        """Of high ones."""
        return float((scores > self.typical).mean())


def high_quantile(scores: Float64) -> float:
    """Above it, and with it, are the highest fifth."""
    return float(np.sort(scores)[-_high_of(len(scores))])


def _high_of(count: int) -> int:
    return max(1, int(HIGH * (count + 1)))


def independent(values: Float64, *, sequential: bool) -> float:
    """How many independent values these neighbours are worth: n / (1 + 2 sum of the autocorrelations of their ranks).

    Summed as far as five times the result (Madras and Sokal 1988, appendix C). Of a video the upper end of its
    interval is taken: how long neighbours are alike is not well known from a few times as long.

    Args:
        values: In order of time, (n,).
        sequential: They come from a video.
    """
    count = len(values)
    ordered = np.sort(values)
    if ordered[0] == ordered[-1]:  # a still life without noise
        return float(count)
    ranks = _ranks(values, ordered)
    spectrum = np.abs(np.fft.rfft(ranks - ranks.mean(), 2 * count)) ** 2
    correlation = np.fft.irfft(spectrum)[:count]
    alike = 2.0 * np.cumsum(correlation / correlation[0]) - 1.0
    far_enough = np.arange(count) >= _WINDOW * alike
    length = max(1.0, float(alike[np.argmax(far_enough)] if far_enough.any() else alike.max()))
    if sequential:
        length *= 1.0 + _UPPER_Z * math.sqrt(2.0 * (2.0 * _WINDOW * length + 1.0) / count)
    return count / length


def _ranks(values: Float64, ordered: Float64) -> NDArray[np.intp]:
    """Twice the number of those below, where each that is the same counts half."""
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
