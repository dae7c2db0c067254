"""From how good frames differ among themselves to the limits beyond which a frame cannot be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

FALSE_ALARM_RATE = 2e-5
TOO_FEW = "few good frames: the widest limit that makes sense"
TOO_DIFFERENT = "good frames differ too much"
_TAIL_SHARE = 0.2
_SHAPE = 0.1
_CONFIDENCE_Z = 1.645
_ALIKE_IN_VIDEO = 10


@dataclass(frozen=True, slots=True)
class Limit:
    """What a statistic of a frame must not exceed.

    Attributes:
        value: NaN where the check is off.
        note: Why it is off, or what else good frames had to say to it; empty otherwise.
    """

    value: float
    note: str = ""

    @property
    def is_on(self) -> bool:
        """Whether there is a limit."""
        return not math.isnan(self.value)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which a limit must lie: what good frames cannot tell.

    Attributes:
        least: Up to here a frame is harmless; good frames of a still life hardly differ at all.
        most: Beyond it a frame is bad, however few the good frames and wide their limit.
    """

    least: float
    most: float


def tail_limit(values: Float64, bounds: Bounds, *, sequential: bool) -> Limit:
    """Limit that one good frame in 50,000 exceeds, of a statistic that is the higher the worse.

    A generalised Pareto tail over the highest fifth, with the shape 0.1, a little heavier than the exponential; its
    scale is the upper end of its 95 % confidence interval, so that few frames give a wide limit. Ten neighbouring
    frames of a video count as one. Where the limit would lie outside the bounds, the bound is taken.

    Args:
        values: Of the good frames, (n,), 1 or more.
        bounds: Of this check.
        sequential: The frames are neighbours in a video.
    """
    tail = _tail(values, len(values) / (_ALIKE_IN_VIDEO if sequential else 1))
    if tail > bounds.most:
        return Limit(bounds.most, TOO_FEW)
    return Limit(max(tail, bounds.least))


def separated_limit(values: Float64, bounds: Bounds, *, sequential: bool) -> Limit:
    """The same, so far out that no good frame comes more than half-way to it; off where that is out of bounds."""
    limit = tail_limit(values, bounds, sequential=sequential)
    twice = 2.0 * float(values.max()) - float(np.median(values))
    if twice > bounds.most:
        return Limit(math.nan, TOO_DIFFERENT)
    return limit if limit.value >= twice else Limit(twice)


def _tail(values: Float64, independent: float) -> float:
    ordered = np.sort(values)
    start = ordered[int((1.0 - _TAIL_SHARE) * (len(ordered) - 1))]
    excess = float((ordered[ordered >= start] - start).mean())
    reach = ((_TAIL_SHARE / FALSE_ALARM_RATE) ** _SHAPE - 1.0) / _SHAPE
    return float(start + excess * reach * _widening(_TAIL_SHARE * independent))


def _widening(count: float) -> float:
    """Upper 95 % limit of an exponential's mean over the mean of so many: 2 n / chi-square (Wilson and Hilferty)."""
    freedom = 2.0 * max(count, 1.0)
    term = 2.0 / (9.0 * freedom)
    return 1.0 / (1.0 - term - _CONFIDENCE_Z * math.sqrt(term)) ** 3
