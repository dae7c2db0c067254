"""Settings for every recalibration of a station, and what one of them is to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from agent.commands.dispatcher import Command
    from agent.commands.schema import RecalibrateArguments
    from agent.zones.active_bundle import ActiveBundle
    from agent.zones.zone import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalibrationPlan:
    """As configured.

    Attributes:
        archive: Folder with the images that people have labelled.
        parts: Number of parts to collect.
        old_weight: See `calibration.update.refit.RefitPlan`.
        shadow_parts: Number of parts that both bundles score before the swap; may be 0.
        min_detection: See `calibration.update.acceptance.acceptance_failures`, as for the next one.
        quiet_s: The longest time without a part.
        keep_bundles: Number of bundles made here that are kept, the newest.
        sequential: Neighbouring parts resemble each other, as untriggered frames do.
    """

    archive: Path
    parts: int
    old_weight: float
    shadow_parts: int
    min_detection: float
    least_detection: float
    quiet_s: float
    keep_bundles: int
    sequential: bool


class Task(NamedTuple):
    """One recalibration.

    Attributes:
        zone: The zone to recalibrate.
        base: The active bundle when the command came; if another becomes active, the recalibration is void.
    """

    command: Command
    arguments: RecalibrateArguments
    zone: Zone
    base: ActiveBundle
