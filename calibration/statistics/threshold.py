"""The threshold, and shares of good parts above it, from held-out scores of good images."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, lgamma, log
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from calibration.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]
    ScoreSampler: TypeAlias = Callable[[np.random.Generator, int], Float64]  # draws this number of scores

_TAIL_SHARE = 0.2
_CONFIDENCE = 0.95
_FARTHEST = 0.1
_NO_SHAPE = 1e-6
_DRAWS, _ENOUGH_DRAWS = 10_000, 10


@dataclass(frozen=True, slots=True)
class WorkingPoint:
    """A threshold and its false-reject rate.

    Attributes:
        threshold: A score above it is a defect.
        false_reject_rate: Requested share of good parts above it.
        interval: 95 % confidence interval of that share, from the number of images.
        method: ``quantile`` of the scores, or ``tail`` fitted beyond the highest score.
        images: Number of good images it is based on.
    """

    threshold: float
    false_reject_rate: float
    interval: tuple[float, float]
    method: str
    images: int


def working_point(scores: Float64, false_reject_rate: float) -> WorkingPoint:
    """Threshold that a given share of good parts exceeds.

    The empirical quantile if there are enough images. For a rate under 1 / (n + 1), a generalised Pareto tail (Pickands
    1975), fitted to the highest fifth by probability-weighted moments (Hosking and Wallis 1987, eq. 10) and limited to
    shapes that are nearly exponential or longer.

    Args:
        scores: Held-out scores of good images, (n,), finite, 0 or more.
        false_reject_rate: In (0, 0.5].

    Raises:
        SettingError: The rate is outside (0, 0.5].
    """
    refuse_invalid_rate(false_reject_rate)
    ordered = np.sort(scores)
    count = len(ordered)
    above = _images_above(false_reject_rate, count)
    if above >= 1:
        low, high = (1.0 - _CONFIDENCE) / 2, (1.0 + _CONFIDENCE) / 2
        interval = share_above_quantile(count, above, low), share_above_quantile(count, above, high)
        return WorkingPoint(float(ordered[count - above]), false_reject_rate, interval, "quantile", count)
    threshold = _Tail.of(ordered).quantile(false_reject_rate)
    # There are no scores beyond the highest: by the rule of three, the data only bound the rate from above.
    interval = (0.0, 1.0 - (1.0 - _CONFIDENCE) ** (1.0 / count))
    return WorkingPoint(max(threshold, float(ordered[-1])), false_reject_rate, interval, "tail", count)


def refuse_invalid_rate(false_reject_rate: float) -> None:
    """Raise SettingError unless the rate is in (0, 0.5]."""
    if not 0.0 < false_reject_rate <= 0.5:  # noqa: PLR2004
        raise SettingError(
            what=f"a false-reject rate of {false_reject_rate} makes no sense",
            remedy="give a share in (0, 0.5], e.g. 0.01 for one good part in a hundred",
        )


def refuse_unsupported_rate(false_reject_rate: float, images: int) -> None:
    """Raise SettingError if there are too few images for so low a rate.

    A tail fitted to n scores is extrapolated down to a tenth of 1 / n, not further.
    """
    needed = ceil(_FARTHEST / false_reject_rate - 1e-9)
    if images < needed:
        raise SettingError(
            what=f"{images} good images cannot support a false-reject rate of {false_reject_rate:.3%}",
            remedy=f"give {needed:,} or more, better {round(1 / false_reject_rate):,}; "
            f"or --false-reject-rate {_FARTHEST / images:.2g} or more",
        )


def chi_square_threshold(sampler: ScoreSampler | None, false_reject_rate: float) -> float | None:
    """The threshold if features were Gaussian, for comparison (Rippel et al. 2021, eq. 6), by simulation.

    None without a sampler, or if the rate is too low to simulate.
    """
    if sampler is None or false_reject_rate * _DRAWS < _ENOUGH_DRAWS:
        return None
    random = np.random.default_rng(0)
    drawn = np.concatenate([sampler(random, _DRAWS // 20) for _ in range(20)])
    return float(np.quantile(drawn, 1.0 - false_reject_rate))


def expected_share_above(point: WorkingPoint, images: int) -> tuple[float, float]:
    """95 % prediction interval of the share of new good images above the threshold, if it keeps its rate.

    Above the k-th highest of n scores the true share is Beta(k, n + 1 - k), so the number among m new images is
    beta-binomial. A fitted tail begins at the highest score: k = 1 bounds the number from above, nothing from below.
    """
    above = _images_above(point.false_reject_rate, point.images)
    if above == 0:
        return 0.0, _beta_binomial_quantile(1, point.images, images, _CONFIDENCE) / images
    tail = (1.0 - _CONFIDENCE) / 2
    low, high = (_beta_binomial_quantile(above, point.images, images, each) for each in (tail, 1.0 - tail))
    return low / images, high / images


def _images_above(false_reject_rate: float, count: int) -> int:
    """The largest k for which k / (n + 1), the expected share above the k-th highest score, is within the rate."""
    return int(false_reject_rate * (count + 1))


def _beta_binomial_quantile(above: int, count: int, new: int, probability: float) -> int:
    """Quantile of the number of ``new`` images above the threshold."""
    total = 0.0
    for hits in range(new):
        choices = _log_choices(new, hits)
        total += exp(
            choices + _log_beta(hits + above, new - hits + count + 1 - above) - _log_beta(above, count + 1 - above)
        )
        if total >= probability:
            return hits
    return new


def _log_beta(one: float, other: float) -> float:
    return lgamma(one) + lgamma(other) - lgamma(one + other)


def _log_choices(count: int, hits: int) -> float:
    return lgamma(count + 1) - lgamma(hits + 1) - lgamma(count - hits + 1)


def share_above(scores: Float64, limit: float) -> float:
    """Share of new good parts above any limit, the inverse of ``working_point``.

    Interpolated between the scores, where k / (n + 1) lie above the k-th highest; from the tail beyond the highest.
    """
    ordered = np.sort(scores)
    count = len(ordered)
    if limit <= ordered[-1]:
        return float(np.interp(limit, ordered, np.arange(count, 0, -1) / (count + 1)))
    return min(1.0 / (count + 1), _Tail.of(ordered).share_above(limit))


@dataclass(frozen=True, slots=True)
class _Tail:
    """A generalised Pareto tail over the highest fifth: ``share`` lie beyond ``start``; ``shape`` is Hosking's k."""

    start: float
    scale: float
    shape: float
    share: float

    @classmethod
    def of(cls, ordered: Float64) -> _Tail:
        count = len(ordered)
        tail = max(2, round(_TAIL_SHARE * count))
        start = ordered[-tail - 1] if tail < count else ordered[0]
        excess = ordered[-tail:] - start
        mean = float(excess.mean())
        if mean <= 0.0:
            return cls(float(start), 0.0, 0.1, tail / count)
        position = (np.arange(1, tail + 1) - 0.35) / tail
        weighted = float(((1 - position) * excess).mean())
        spread = max(mean - 2 * weighted, 1e-12 * mean)
        # At most slightly above 0: so few scores cannot show that a tail ends.
        shape = float(np.clip(mean / spread - 2, -0.5, 0.1))
        return cls(float(start), mean * (1 + shape), shape, tail / count)

    def quantile(self, rate: float) -> float:
        share = rate / self.share
        if abs(self.shape) < _NO_SHAPE:
            return self.start - self.scale * log(share)
        return self.start + self.scale / self.shape * (1 - exp(self.shape * log(share)))

    def share_above(self, limit: float) -> float:
        if self.scale <= 0.0:
            return 0.0
        far = (limit - self.start) / self.scale
        if abs(self.shape) < _NO_SHAPE:
            return self.share * exp(-far)
        left = max(1 - self.shape * far, 0.0)
        return 0.0 if left <= 0.0 < self.shape else self.share * exp(log(left) / self.shape)


def share_above_quantile(count: int, above: int, probability: float) -> float:
    """Quantile of the true share above the k-th highest of n scores, Beta(k, n + 1 - k).

    P(share <= p) = P(Binomial(n, p) >= k), solved for p by bisection.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(exp(_log_binomial(k, count, middle)) for k in range(above))
        low, high = (middle, high) if 1.0 - below < probability else (low, middle)
    return (low + high) / 2


def _log_binomial(hits: int, count: int, share: float) -> float:
    return _log_choices(count, hits) + hits * log(share) + (count - hits) * log(1 - share)
