"""Histograms as HTML: bars in SVG, which stretches, and text in HTML, which does not, for screens of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

_MOST_TICKS = 6
_LEAST_TICKS = 2
_EDGE_SHARE = 0.04
_CHARACTER_SHARE = 0.021  # of the width of the plot on a phone
_LEFT_HALF = 0.5
_LOWEST_BAR = 2.0


@dataclass(frozen=True, slots=True)
class HistogramMark:
    """A value that divides the histogram: bars above it have another colour."""

    value: float
    label: str
    note: str = ""


def histogram(values: Float64, title: str, *, mark: HistogramMark | None = None, logarithmic: bool = False) -> str:
    """A histogram of (n,) values, as a ``<div>`` for the report's style sheet.

    The edge of a bar lies on the mark. The title is for screen readers. A logarithmic axis needs positive values.
    """
    scale: Callable[[Float64], Float64] = np.log10 if logarithmic else _unchanged
    placed = np.sort(scale(values.astype(np.float64)))
    divide = math.inf if mark is None else float(scale(np.array(mark.value)))
    edges = _edges(placed, None if mark is None else divide)
    counts = np.diff(np.searchsorted(placed, edges, side="right"))  # a value on an edge belongs to the bar below it
    top = _round_up(int(counts.max()))
    low, high = float(edges[0]), float(edges[-1])

    def left(location: float) -> float:
        return 100 * (location - low) / (high - low)

    above = ' class="above"'
    bars = "".join(
        f'<rect x="{left(start):.3f}" y="{100 - height:.3f}" width="{left(stop) - left(start):.3f}" '
        f'height="{height:.3f}"{above if (start + stop) / 2 > divide else ""}/>'
        for start, stop, height in zip(edges[:-1], edges[1:], _heights(counts, top), strict=True)
        if height
    )
    ticks = _logarithmic_ticks(low, high) if logarithmic else _linear_ticks(low, high)
    axis = "".join(f'<span style="left:{left(location):.2f}%">{label}</span>' for location, label in ticks)
    levels = "".join(f'<i style="bottom:{100 * level / top:.2f}%"><b>{level:g}</b></i>' for level in (top / 2, top))
    line = "" if mark is None else mark_line(left(divide), mark)
    return (
        f'<div class="chart"><div class="plot">{levels}'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">{bars}</svg>'
        f'{line}</div><div class="axis" aria-hidden="true">{axis}</div></div>'
    )


def _heights(counts: NDArray[np.int64], top: int) -> Float64:
    """In hundredths of the plot; a lone value stays visible."""
    return np.where(counts > 0, np.maximum(100 * counts / top, _LOWEST_BAR), 0.0)


def _unchanged(values: Float64) -> Float64:
    return values


def _edges(placed: Float64, mark: float | None) -> Float64:
    """Edges of bars of one width over all values and the mark, one of them on the mark."""
    low, high = float(placed[0]), float(placed[-1])
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    bars = int(np.clip(2.5 * math.sqrt(len(placed)), 12, 48))
    width = (high - low) / bars
    anchor = low if mark is None else mark
    first = math.floor((low - anchor) / width + 1e-6) - 1
    last = math.ceil((high - anchor) / width - 1e-6) + 1
    edges: Float64 = anchor + width * np.arange(first, last + 1, dtype=np.float64)
    return edges


def _round_up(count: int) -> int:
    """Top of the axis: an even number not below the count, with one or two digits that are not 0."""
    for power in range(len(str(count)) + 1):
        for digits in (2, 4, 6, 8, 10, 12, 16):
            if digits * 10.0**power >= count:
                return int(digits * 10.0**power)
    return count


def mark_line(left: float, mark: HistogramMark) -> str:
    """An upright line with its label, this far from the left, in hundredths of the plot."""
    side = "toward-left" if left > 100 * _LEFT_HALF else "toward-right"
    return (
        f'<em class="{side}" style="left:{left:.2f}%"><span>{escape(mark.label)}'
        f"<small>{escape(mark.note)}</small></span></em>"
    )


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    for power in range(math.floor(math.log10(high - low)) - 1, math.ceil(math.log10(high - low)) + 1):
        for step in (10.0**power, 2 * 10.0**power, 5 * 10.0**power):
            first, last = math.ceil(low / step), math.floor(high / step)
            if last - first < _MOST_TICKS:
                return _labelled([number * step for number in range(first, last + 1)], low, high, float)
    return []


def _logarithmic_ticks(low: float, high: float) -> list[tuple[float, str]]:
    powers = range(math.floor(low), math.ceil(high) + 1)
    for leading in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [digit * 10.0**power for power in powers for digit in leading]
        ticks = _labelled(values, low, high, math.log10)
        if _LEAST_TICKS <= len(ticks) <= _MOST_TICKS:
            return ticks
    values = [10.0**power for power in powers]
    return _labelled(values, low, high, math.log10)[:: max(1, len(values) // _MOST_TICKS)]


def _labelled(
    values: Sequence[float], low: float, high: float, scale: Callable[[float], float]
) -> list[tuple[float, str]]:
    """Positions and labels of the values inside, without those at the edges, where a label would be cut off."""
    labelled = [(scale(value), f"{value:,.10g}") for value in values]
    edges = [max(_EDGE_SHARE, _CHARACTER_SHARE * len(label) / 2) * (high - low) for _, label in labelled]
    return [each for each, edge in zip(labelled, edges, strict=True) if low + edge <= each[0] <= high - edge]
