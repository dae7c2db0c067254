"""What will be found: synthetic defects in good images, scored by statistics that have not seen these images."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from calibration.statistics.threshold import CHI_SQUARE, HIGHEST, lowest_supported_rate, share_above, working_point

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.statistics.threshold import WorkingPoint

RELIABLY = 0.9
FORECAST_ARRAYS = ("defect_kinds", "defect_px", "defect_scores", "good_scores")
LEAST_DETECTION = 0.5
"""Share of the largest defects below which a bundle is called nearly blind: it misses more of them than it finds."""
HIGHEST_RATE = 0.5
_RATES = (1 / 1000, 1 / 200, 1 / 100, 1 / 50, 1 / 20, 1 / 10, 1 / 5)
_LINES = 5


class CurvePoint(NamedTuple):
    """A threshold: the share of good parts that it rejects, and of synthetic defects that it finds."""

    false_reject_rate: float
    found: float


@dataclass(frozen=True)
class Forecast:
    """Held-out scores of synthetic defects.

    Attributes:
        kinds: Kind of each, (m,).
        sides_px: Side of each, in frame pixels, (m,).
        scores: Score of each, (m,).
        good: Held-out scores of good images, (n,).
        point: The threshold.
    """

    kinds: NDArray[np.str_]
    sides_px: NDArray[np.int64]
    scores: NDArray[np.float64]
    good: NDArray[np.float64]
    point: WorkingPoint

    @classmethod
    def of(cls, reference: Mapping[str, NDArray[Any]], point: WorkingPoint) -> Forecast:
        """From arrays in ``reference.npz``."""
        kinds, sides_px, scores, good = (reference[name] for name in FORECAST_ARRAYS)
        return cls(kinds, sides_px, scores, good, point)

    @property
    def sizes(self) -> list[int]:
        """The different sides, ascending."""
        return [int(side) for side in np.unique(self.sides_px)]

    def found(self, *, sizes: Sequence[int] = (), kind: str | None = None, threshold: float | None = None) -> float:
        """Share found of those of these sizes, or all, and of this kind, or all; at the threshold, or at another."""
        chosen = np.isin(self.sides_px, sizes) if len(sizes) else np.ones(len(self.scores), np.bool_)
        if kind is not None:
            chosen &= self.kinds == kind
        return float((self.scores[chosen] > (self.point.threshold if threshold is None else threshold)).mean())

    @property
    def largest_found(self) -> float:
        """Share found of the largest size, a quarter of the region's shorter side."""
        return self.found(sizes=self.sizes[-1:])

    @property
    def smallest_px(self) -> float | None:
        """Side from which on nine in ten are found; None if not even of the largest.

        The shares are made to rise with the size (isotonic regression) and interpolated over its logarithm.
        """
        sizes = self.sizes
        shares = _rising([self.found(sizes=[side]) for side in sizes])
        reached = next((number for number, share in enumerate(shares) if share >= RELIABLY), None)
        if not reached:
            return None if reached is None else float(sizes[0])
        below, above = shares[reached - 1], shares[reached]
        step = (RELIABLY - below) / (above - below)
        return float(sizes[reached - 1] * (sizes[reached] / sizes[reached - 1]) ** step)

    def curve(self, rates: Sequence[float]) -> list[CurvePoint]:
        """What thresholds for these false-reject rates would find."""
        thresholds = [working_point(self.good, rate, self.point.parts).threshold for rate in rates]
        return [
            CurvePoint(rate, self.found(threshold=threshold)) for rate, threshold in zip(rates, thresholds, strict=True)
        ]

    def rejected(self, threshold: float) -> float | None:
        """Share of good parts that a threshold rejects, at least ``lowest_rate``; None if there are too few images."""
        if self.point.method == HIGHEST:
            return None
        return max(share_above(self.good, threshold, self.point.parts), self.lowest_rate)

    @property
    def own_rate(self) -> float:
        """The false-reject rate of the threshold: by the good images, where chi-square set it."""
        if self.point.method != CHI_SQUARE:
            return self.point.false_reject_rate
        rate = share_above(self.good, self.point.threshold, self.point.parts)
        return float(np.clip(rate, self.lowest_rate, HIGHEST_RATE))

    @property
    def lowest_rate(self) -> float:
        """The lowest false-reject rate that the good images support."""
        return lowest_supported_rate(self.point.parts or len(self.good))

    def usual_rates(self) -> list[float]:
        """Five round false-reject rates around that of the threshold, which is among them, ascending.

        None if there are too few images for any.
        """
        if self.point.method == HIGHEST:
            return []
        own = self.own_rate
        others = [rate for rate in _RATES if rate >= self.lowest_rate and abs(log(rate / own)) > log(1.2)]
        rates = sorted([*others, own])
        start = max(0, min(rates.index(own) - _LINES // 2, len(rates) - _LINES))
        return rates[start : start + _LINES]


def _rising(shares: Sequence[float]) -> list[float]:
    """Isotonic regression of values of the same weight: the nearest that never falls."""
    count = len(shares)
    return [
        max(
            min(float(np.mean(shares[start:stop])) for stop in range(place + 1, count + 1))
            for start in range(place + 1)
        )
        for place in range(count)
    ]
