"""The curve of false rejects against detection, as HTML like that of the histograms."""

from __future__ import annotations

from html import escape
from math import log
from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.forecast import HIGHEST_RATE
from calibration.workstation.report.histogram import HistogramMark, mark_line
from calibration.workstation.report.html import one_in, percent

if TYPE_CHECKING:
    from calibration.statistics.forecast import Forecast

_POINTS = 60
_INSIDE = (5, 95)  # where a tick's label is not cut off, in hundredths of the plot
_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2)


def detection_curve(forecast: Forecast) -> str:
    """What thresholds for all false-reject rates that the good images support would find, as a ``<div>``."""
    own = forecast.own_rate
    lowest = min(forecast.lowest_rate, own)
    points = forecast.curve(np.geomspace(lowest, HIGHEST_RATE, _POINTS).tolist())

    def left(rate: float) -> float:
        return 100 * log(rate / lowest) / log(HIGHEST_RATE / lowest)

    line = " ".join(f"{left(point.false_reject_rate):.3f},{100 - 100 * point.found:.3f}" for point in points)
    levels = "".join(f'<i style="bottom:{level}%"><b>{level}</b></i>' for level in (50, 100))
    ticks = [rate for rate in _TICKS if _INSIDE[0] < left(rate) < _INSIDE[1]]
    axis = "".join(f'<span style="left:{left(rate):.2f}%">{one_in(rate)}</span>' for rate in ticks)
    found = percent(forecast.found())
    mark = mark_line(left(own), HistogramMark(own, f"threshold: {one_in(own)}", f"finds {found}"))
    title = f"Synthetic defects found against good parts rejected; at the threshold {found} and {one_in(own)}"
    return (
        f'<div class="chart"><div class="plot">{levels}'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'<polyline points="{line}"/></svg>{mark}</div><div class="axis" aria-hidden="true">{axis}</div></div>'
    )
