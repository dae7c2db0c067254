"""What judges a zone of a frame, exchanged as a whole between two frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.alerts.defect import Rules
    from agent.drift.watch import DriftWatch
    from agent.frame_checks.camera_checks import FrameChecks
    from agent.frame_checks.empty_place import EmptyPlace
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Preprocess


def about_zone(zone: str, text: str) -> str:
    """The same, for people, with the zone that it is about; where the station has one bundle, it has no name."""
    return f"zone {zone}: {text}" if zone else text


@dataclass(frozen=True, slots=True)
class Recipe:
    """Of one bundle and one threshold.

    Attributes:
        preprocess: Of the bundle.
        engine: Entered already.
        rules: When a score is a defect.
        grid: Of the features, (h, w): says where the map lies in the region.
        checks: Whether a frame can be trusted; None trusts every frame that fits.
        empty_place: Whether there is anything to judge; None where nobody has shown it empty.
        drift: Whether good parts walk away from calibration; None does not ask.
        zone: Its name; empty where the station has one bundle.
    """

    preprocess: Preprocess
    engine: Engine
    rules: Rules
    grid: tuple[int, int]
    checks: FrameChecks | None = None
    empty_place: EmptyPlace | None = None
    drift: DriftWatch | None = None
    zone: str = ""
