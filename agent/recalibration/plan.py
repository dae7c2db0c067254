"""What holds for every recalibration of a station, and what one of them is to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from agent.commands.dispatcher import Command
    from agent.commands.schema import RecalibrateArguments
    from agent.zones.served import ActiveBundle
    from agent.zones.zone import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalibrationPlan:
    """As configured.

    Attributes:
        archive: Folder with the pictures that people have marked.
        parts: To collect.
        old_weight: See `calibration.update.refit.Plan`.
        shadow_parts: That both bundles judge; 0 judges none.
        min_detection: See `calibration.update.acceptance.objections`.
        quiet_s: So long no part may come.
        keep_bundles: Newest bundles made here that stay.
        sequential: Neighbouring parts resemble each other, as frames do that nobody triggers.
    """

    archive: Path
    parts: int
    old_weight: float
    shadow_parts: int
    min_detection: float
    quiet_s: float
    keep_bundles: int
    sequential: bool


class Task(NamedTuple):
    """One recalibration.

    Attributes:
        zone: What learns on.
        base: What judged when it was commanded; where something else does, it has lost its ground.
    """

    command: Command
    arguments: RecalibrateArguments
    zone: Zone
    base: ActiveBundle
