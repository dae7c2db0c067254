"""What other thresholds would reject and find, by the calibration: for people who move the threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.messages.records import Payload
    from calibration.statistics.forecast import Forecast

WIDEST = 10.0
"""A command sets the threshold to at most this many times the one before any command, and at least that part of it."""
_STEPS = 20
_DIGITS = 6


def threshold_curve(forecast: Forecast, base: float, least_detection: float) -> Payload:
    """The curve of a bundle, for the live page; costs some milliseconds.

    Args:
        forecast: Of the bundle.
        base: Threshold before any command.
        least_detection: Share of the largest synthetic defects; a threshold that finds less is nearly blind.

    Returns:
        ``points``: 41 from ``base / WIDEST`` to ``base * WIDEST``, evenly spaced by their logarithms, ``base`` among
        them; each is a list of a threshold, the share of good parts that it rejects (null if there were too few to
        say), the share of the synthetic defects that it finds, and that of the largest of them. ``lowestRate``: the
        good parts support no lower share. ``leastDetection``: as given. ``defects``: number of synthetic defects.
    """
    thresholds = [base * WIDEST ** (step / _STEPS) for step in range(-_STEPS, _STEPS + 1)]
    return {
        "points": [_point(forecast, threshold) for threshold in thresholds],
        "lowestRate": forecast.lowest_rate,
        "leastDetection": least_detection,
        "defects": len(forecast.scores),
    }


def _point(forecast: Forecast, threshold: float) -> list[float | None]:
    rejected = forecast.rejected(threshold)
    found = forecast.found(threshold=threshold)
    largest = forecast.found(sizes=forecast.sizes[-1:], threshold=threshold)
    return [None if each is None else float(f"{each:.{_DIGITS}g}") for each in (threshold, rejected, found, largest)]
