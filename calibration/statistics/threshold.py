"""The threshold, and shares of good parts above it, from held-out scores of good images."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, ceil, cos, exp, lgamma, log, pi, sin, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import SettingError
from calibration.statistics.chi_square import exceeded_by
from calibration.statistics.outliers import logarithms, stray_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

CHI_SQUARE = "chi-square"
HIGHEST = "highest of few"
_CONFIDENCE = 0.95
_FARTHEST = 0.1
_ENOUGH_ABOVE = 10
_MEDIAN_VARIANCE = pi / 2  # of the median of normal values, in variances of their mean
_ALMOST_NORMAL = 2000


@dataclass(frozen=True, slots=True)
class WorkingPoint:
    """A threshold and its false-reject rate.

    Attributes:
        threshold: A score above it is a defect.
        false_reject_rate: Requested share of good parts above it.
        interval: 95 % confidence interval of that share, from the number of good images above the threshold.
        method: ``quantile`` of the scores, ``log-normal`` or ``chi-square``: see `working_point`. ``highest of few``
            promises nothing: see `highest_of_few`.
        images: Number of good images it is based on.
        parts: Number of different parts that they show; None if each is taken for another one.
    """

    threshold: float
    false_reject_rate: float
    interval: tuple[float, float]
    method: str
    images: int
    parts: int | None = None


def working_point(
    scores: Float64, false_reject_rate: float, parts: int | None = None, chi_square: float | None = None
) -> WorkingPoint:
    """Threshold that a given share of good parts exceeds.

    The empirical quantile where ten images lie above it, so that no single one sets it. Otherwise the logarithms of the
    scores are taken as normally distributed above their median m: with s^2 the mean square of their k deviations from
    m, log t = m + s * T * sqrt(1 + pi / (2 n)), where T is the quantile of Student's t with k - 1 degrees of freedom
    and pi / 2 the variance of a median. The mean true rate is then at most the requested one for any scores between
    chi-square and log-normal, from 10 images on; any power of the scores gives the same threshold.

    Strays (`stray_indices`) do not count, in either case.

    Args:
        scores: Held-out scores of good images, (n,), finite, 0 or more.
        false_reject_rate: In (0, 0.5].
        parts: Number of different parts that the images show; None takes each image for another part. Images of one
            part resemble each other, so that they prove as much as this number of images.
        chi_square: Threshold that follows from Gaussian features and is taken as it is; the scores then say only what
            share of good parts is above it.

    Raises:
        SettingError: The rate is outside (0, 0.5].
    """
    refuse_invalid_rate(false_reject_rate)
    share = _parts_in_each(scores, parts)
    bulk = _Bulk.of(scores, share)
    threshold, method = bulk.quantile(false_reject_rate) if chi_square is None else (chi_square, CHI_SQUARE)
    interval = _interval(ceil(share * int((scores > threshold).sum())), ceil(share * len(scores)))
    return WorkingPoint(threshold, false_reject_rate, interval, method, len(scores), parts)


def highest_of_few(scores: Float64, images: int) -> WorkingPoint:
    """The highest score as the threshold, where there are too few images to promise a rate.

    Of n + 1 good parts that are alike each is as likely the highest, so that 1 / (n + 1) are expected above it.
    ``images`` is n; there are more scores than that if a single image was varied.
    """
    threshold = max(float(scores.max()), float(np.finfo(np.float32).tiny))
    return WorkingPoint(threshold, 1 / (images + 1), _interval(0, images), HIGHEST, images)


def refuse_invalid_rate(false_reject_rate: float) -> None:
    """Raise SettingError unless the rate is in (0, 0.5]."""
    if not 0.0 < false_reject_rate <= 0.5:  # noqa: PLR2004
        raise SettingError(
            what=f"a false-reject rate of {false_reject_rate} makes no sense",
            remedy="give a share in (0, 0.5], e.g. 0.01 for one good part in a hundred",
        )


def refuse_unsupported_rate(false_reject_rate: float, images: int) -> None:
    """Raise SettingError if there are too few images for so low a rate.

    A law fitted to n scores is extrapolated down to a tenth of 1 / n, not further.
    """
    needed = ceil(_FARTHEST / false_reject_rate - 1e-9)
    if images < needed:
        raise SettingError(
            what=f"{images} good images cannot support a false-reject rate of {false_reject_rate:.3%}",
            remedy=f"give {needed:,} or more, better {round(1 / false_reject_rate):,}; "
            f"or --false-reject-rate {_FARTHEST / images:.2g} or more",
        )


def lowest_supported_rate(images: int) -> float:
    """The lowest false-reject rate that this many images support."""
    return _FARTHEST / images


def expected_share_above(scores: Float64, threshold: float, images: int) -> tuple[float, float]:
    """95 % prediction interval of the share of new good images above a threshold.

    With j of n scores above it, the true share lies between Beta(j, n + 1 - j) and Beta(j + 1, n - j), so the number
    among m new images between two beta-binomial ones.
    """
    above, count = int((scores > threshold).sum()), len(scores)
    tail = (1.0 - _CONFIDENCE) / 2
    if above == 0:
        return 0.0, _beta_binomial_quantile(1, count, images, _CONFIDENCE) / images
    low = _beta_binomial_quantile(above, count, images, tail)
    high = _beta_binomial_quantile(min(above + 1, count), count, images, 1.0 - tail)
    return low / images, high / images


def _interval(above: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of the true share above a threshold, by the number of scores above it.

    Clopper and Pearson (1934); with none above, the rule of three.
    """
    if above == 0:
        return 0.0, 1.0 - (1.0 - _CONFIDENCE) ** (1.0 / count)
    low, high = (1.0 - _CONFIDENCE) / 2, (1.0 + _CONFIDENCE) / 2
    return share_above_quantile(count, above, low), share_above_quantile(count, min(above + 1, count), high)


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


def share_above(scores: Float64, limit: float, parts: int | None = None) -> float:
    """Share of new good parts above any limit, the inverse of ``working_point``, which explains ``parts``."""
    return _Bulk.of(scores, _parts_in_each(scores, parts)).share_above(limit)


def _parts_in_each(scores: Float64, parts: int | None) -> float:
    return 1.0 if parts is None else min(1.0, parts / len(scores))


@dataclass(frozen=True, slots=True)
class _Bulk:
    """Scores without strays, ascending, and the log-normal law of those above their median; see `working_point`.

    Attributes:
        centre: Median of the logarithms.
        spread: Their root mean square deviation above it, widened for the uncertainty of the median.
        freedom: Degrees of freedom of Student's t.
        share: Different parts in each image.
    """

    ordered: Float64
    centre: float
    spread: float
    freedom: int
    share: float

    @classmethod
    def of(cls, scores: Float64, share: float = 1.0) -> _Bulk:
        ordered = np.sort(np.delete(scores, stray_indices(scores)))
        logs = logarithms(ordered)
        centre = float(np.median(logs))
        excess = logs[logs > centre] - centre
        if not len(excess):
            return cls(ordered, centre, 0.0, 1, share)
        widened = 1 + _MEDIAN_VARIANCE / (share * len(ordered))
        freedom = max(1, round(share * len(excess)) - 1)
        return cls(ordered, centre, sqrt(float(np.mean(excess**2)) * widened), freedom, share)

    @property
    def enough(self) -> int:
        """Images above a quantile that set it together: those of ten different parts, if there are as many."""
        return min(ceil(_ENOUGH_ABOVE / self.share), len(self.ordered))

    def quantile(self, rate: float) -> tuple[float, str]:
        """The score that this share exceeds, and how it was found."""
        above = int(rate * (len(self.ordered) + 1))
        if above >= self.enough:
            return float(self.ordered[-above]), "quantile"
        threshold = exp(self.centre + self.spread * student_t_quantile(rate, self.freedom))
        return max(threshold, float(self.ordered[-self.enough])), "log-normal"  # never below that of a higher rate

    def share_above(self, limit: float) -> float:
        """The share that exceeds a score."""
        count, begin = len(self.ordered), float(self.ordered[-self.enough])
        empirical = float(np.interp(min(limit, begin), self.ordered, np.arange(count, 0, -1) / (count + 1)))
        if limit <= begin:
            return empirical
        if self.spread <= 0.0:
            return 0.0
        return min(empirical, student_t_share_above((log(limit) - self.centre) / self.spread, self.freedom))


def student_t_share_above(value: float, freedom: int) -> float:
    """P(T > value) for Student's t with whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    if freedom > _ALMOST_NORMAL:
        return NormalDist().cdf(-value)
    if value < 0:
        return 1.0 - student_t_share_above(-value, freedom)
    angle = atan2(value, sqrt(freedom))
    square, is_odd = cos(angle) ** 2, freedom % 2
    total, term = 0.0, cos(angle) if is_odd else 1.0
    for step in range(2 + is_odd, freedom + 1, 2):
        total += term
        term *= square * (step - 1) / step
    within = 2 / pi * (angle + sin(angle) * total) if is_odd else sin(angle) * total
    return (1.0 - within) / 2


def student_t_quantile(share: float, freedom: int) -> float:
    """The value that a share in (0, 0.5] of Student's t exceeds."""
    return exceeded_by(share, lambda value: student_t_share_above(value, freedom), 1.0)


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
