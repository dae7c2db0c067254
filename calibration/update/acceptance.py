"""Acceptance test of a refitted bundle on known and synthetic defects, before it becomes active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.synthetic_defects import DIFFERENT, with_defect

if TYPE_CHECKING:
    from calibration.bundle.bundle import Bundle
    from calibration.bundle.manifest import ForecastRecord
    from calibration.update.marked_defects import MarkedDefects


@dataclass(frozen=True)
class AcceptanceResult:
    """Detection rates of the old and the new bundle.

    Attributes:
        false_rejects: Share of the parts that score above the new threshold, in cross-validation.
        synthetic_old: Share of synthetic defects that the old bundle was forecast to find; if it has no forecast, that
            it finds in its golden frames.
        forecast: Of the new bundle.
        defects: Number of known defects tried.
        defects_old: Number of these that the old bundle finds.
        defects_new: Number of these that the new bundle finds.
    """

    false_rejects: float
    synthetic_old: float
    forecast: ForecastRecord
    defects: int
    defects_old: int
    defects_new: int


def check_acceptance(
    old: Bundle, new: Bundle, marked: tuple[MarkedDefects, MarkedDefects], threads: int
) -> AcceptanceResult:
    """Compare what both bundles find, of synthetic and of known defects.

    Args:
        old: The active bundle.
        new: The refitted bundle.
        marked: Parts that a person called defective, under the old and under the refitted bundle.
        threads: Threads of the networks.
    """
    before, forecast = old.manifest.forecast, new.manifest.forecast
    assert forecast is not None  # noqa: S101 - every refitted bundle has one
    scores = new.reference()["good_scores"]
    return AcceptanceResult(
        false_rejects=float(np.mean(scores > new.manifest.working_point.threshold)),
        synthetic_old=_found_in_golden_frames(old, threads) if before is None else before.found,
        forecast=forecast,
        defects=len(marked[0].scores),
        defects_old=marked[0].found,
        defects_new=marked[1].found,
    )


def acceptance_failures(result: AcceptanceResult, min_detection: float, least_detection: float) -> list[str]:
    """Reasons against the new bundle, for people.

    Args:
        result: What both bundles find.
        min_detection: The new one must find this share of what the old one finds.
        least_detection: It must find this share of the largest synthetic defects, whatever the old one finds.
    """
    failures, forecast = [], result.forecast
    if forecast.largest_found < least_detection:
        failures.append(
            f"it finds {forecast.largest_found:.0%} of the largest synthetic defects, of {forecast.largest_px} pixels; "
            f"recalibration.least_detection asks for {least_detection:.0%}"
        )
    if forecast.found < min_detection * result.synthetic_old:
        failures.append(
            f"it finds {forecast.found:.0%} of synthetic defects; the old bundle found {result.synthetic_old:.0%}"
        )
    if result.defects_new < min_detection * result.defects_old:
        failures.append(
            f"it finds {result.defects_new} of {result.defects} images marked as defects; the old bundle finds "
            f"{result.defects_old}"
        )
    return failures


def _found_in_golden_frames(bundle: Bundle, threads: int) -> float:
    """Share of synthetic defects found, two of each kind and size."""
    golden = bundle.golden().frames[:-1]  # the last is damaged
    damaged = [
        with_defect(golden[number % len(golden)], number, np.random.default_rng(number))
        for number in range(2 * DIFFERENT)
    ]
    threshold = bundle.manifest.working_point.threshold
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        return sum(not engine(frame).score <= threshold for frame in damaged) / len(damaged)
