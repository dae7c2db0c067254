"""Everything that inspects a zone of a frame, swapped as a whole between two parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.alerts.defect import Rules
    from agent.drift.drift_watch import DriftWatch
    from agent.frame_checks.camera_checks import FrameChecks
    from agent.frame_checks.empty_place import EmptyPlace
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image, Preprocess


def about_zone(zone: str, text: str) -> str:
    """A message with the zone that it is about; unchanged where the station has one bundle without a name."""
    return f"zone {zone}: {text}" if zone else text


@dataclass(frozen=True, slots=True)
class Recipe:
    """One bundle with one threshold.

    Attributes:
        preprocess: The preprocessing of the bundle.
        engine: Entered already.
        rules: When a score is a defect.
        grid: Size of the feature grid, (h, w): gives the position of the score map in the region.
        checks: Whether a frame can be trusted; None trusts every frame that fits.
        empty_place: Whether there is anything to inspect; None where no image of the empty place is configured.
        drift: Whether good parts drift away from calibration; None does not watch it.
        zone: Name of the zone; empty where the station has one bundle.
    """

    preprocess: Preprocess
    engine: Engine
    rules: Rules
    grid: tuple[int, int]
    checks: FrameChecks | None = None
    empty_place: EmptyPlace | None = None
    drift: DriftWatch | None = None
    zone: str = ""

    def pass_over(self, image: Image) -> None:
        """Note a frame that shows no part: it still shows whether the camera is frozen."""
        if self.checks is not None:
            self.checks.pass_over(image)
