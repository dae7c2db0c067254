"""Limits beyond which a frame cannot be trusted, from how much the good frames vary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

FALSE_ALARM_RATE = 2e-5
TOO_FEW = "few good frames: the widest sensible limit"
TOO_DIFFERENT = "the good frames differ too much"
_TAIL_SHARE = 0.2
_SHAPE = 0.1
_CONFIDENCE_Z = 1.645
_VIDEO_FRAMES_PER_SAMPLE = 10


@dataclass(frozen=True, slots=True)
class Limit:
    """What a statistic of a frame must not exceed.

    Attributes:
        value: NaN if the check is off.
        note: Why the check is off, or a remark about the limit; may be empty.
    """

    value: float
    note: str = ""

    @property
    def is_on(self) -> bool:
        """Whether there is a limit."""
        return not math.isnan(self.value)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range a limit must lie in, whatever the good frames are like.

    Attributes:
        least: A frame up to here is harmless, even if the good frames hardly differ.
        most: A frame beyond it is bad, however few the good frames and wide their limit.
    """

    least: float
    most: float


def limit_arrays(limits: Mapping[str, Limit]) -> dict[str, NDArray[Any]]:
    """``check_names``, ``check_limits`` and ``check_notes`` for ``reference.npz``."""
    return {
        "check_names": np.array(list(limits), np.str_),
        "check_limits": np.array([limit.value for limit in limits.values()], np.float64),
        "check_notes": np.array([limit.note for limit in limits.values()], np.str_),
    }


def limits_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Limit]:
    """The limits in ``reference.npz``, by check; empty for a bundle made before there were checks."""
    if "check_names" not in arrays:
        return {}
    columns = (arrays[f"check_{each}"].tolist() for each in ("names", "limits", "notes"))
    return {name: Limit(value, note) for name, value, note in zip(*columns, strict=True)}


def tail_limit(values: Float64, bounds: Bounds, *, sequential: bool) -> Limit:
    """Limit that one good frame in 50,000 exceeds, for a statistic where higher is worse.

    A generalised Pareto tail is fitted to the highest fifth, with the shape 0.1, slightly heavier than exponential.
    Its scale is the upper end of the 95 % confidence interval, so that few frames give a wide limit. Ten consecutive
    video frames count as one. A limit outside the bounds is replaced by the bound.

    Args:
        values: Of the good frames, (n,), 1 or more.
        bounds: Bounds of this check.
        sequential: The frames are consecutive frames of a video.
    """
    tail = _tail(values, len(values) / (_VIDEO_FRAMES_PER_SAMPLE if sequential else 1))
    if tail > bounds.most:
        return Limit(bounds.most, TOO_FEW)
    return Limit(max(tail, bounds.least))


def separated_limit(values: Float64, bounds: Bounds, *, sequential: bool) -> Limit:
    """``tail_limit``, but at least twice as far from the median as any good frame; off if that is out of bounds."""
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
    """Upper 95 % limit of an exponential's mean over the sample mean: 2 n / chi-square (Wilson and Hilferty)."""
    freedom = 2.0 * max(count, 1.0)
    term = 2.0 / (9.0 * freedom)
    return 1.0 / (1.0 - term - _CONFIDENCE_Z * math.sqrt(term)) ** 3
