"""Means and standard errors over runs, and over data sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calibration.workstation.evaluation.benchmark import Run

# The attributes of ``Run`` that are averaged.
FIGURES = (
    "image_auroc",
    "average_precision",
    "brightness_auroc",
    "pixel_auroc",
    "region_overlap",
    "best_f1",
    "false_reject_rate_at_full_detection",
    "promised_false_reject_rate",
    "false_reject_rate",
    "promise_kept",
    "detection_rate",
    "fit_s",
    "network_ms",
    "bundle_mb",
)


@dataclass(frozen=True, slots=True)
class Average:
    """Average of one figure; None without values.

    Attributes:
        standard_error: Standard error of the mean, s / sqrt(n) with n - 1 in s; None for fewer than two values.
        values: Number of values.
    """

    mean: float | None
    standard_error: float | None
    values: int


@dataclass(frozen=True)
class Row:
    """Averages of one backbone with one detector.

    Attributes:
        set: Name of the data set; None over all sets.
        over: Number of runs, or of sets.
    """

    set: str | None
    backbone: str
    detector: str
    over: int
    figures: Mapping[str, Average]


def average(values: Sequence[float | None]) -> Average:
    """Mean and standard error of those that are not None."""
    known = [value for value in values if value is not None]
    if not known:
        return Average(None, None, 0)
    spread = float(np.std(known, ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else None
    return Average(float(np.mean(known)), spread, len(known))


def over_runs(runs: Sequence[Run]) -> list[Row]:
    """Averages over the seeds and folds of each set, backbone and detector, in the order of the runs."""
    grouped: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.set, run.backbone, run.detector), []).append(run)
    return [
        Row(*names, len(group), {figure: average([getattr(run, figure) for run in group]) for figure in FIGURES})
        for names, group in grouped.items()
    ]


def over_sets(rows: Sequence[Row]) -> list[Row]:
    """Averages of the sets' means: each set counts the same, however many images or runs it has.

    The standard error is that over sets, as in Rippel et al. 2021, without the differences between runs of a set.
    """
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.backbone, row.detector), []).append(row)
    return [
        Row(
            None,
            *names,
            len(group),
            {figure: average([row.figures[figure].mean for row in group]) for figure in FIGURES},
        )
        for names, group in grouped.items()
    ]
