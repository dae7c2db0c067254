"""What commands change and the loop obeys, from its next frame on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import CommandRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.zones.recipe import Recipe
    from agent.zones.zone import Zone


class StationControls:
    """Of a station.

    Attributes:
        zones: At least one; a single one may have no name.
        paused: Why nothing is inspected; None while it is. It ends with the process: an agent that comes back inspects.
    """

    def __init__(self, zones: Sequence[Zone]) -> None:
        self.zones = zones
        self.paused: str | None = None

    @property
    def judging(self) -> Sequence[Recipe]:
        """What judges now, zone by zone."""
        return [zone.served.recipe for zone in self.zones]

    @property
    def threshold(self) -> float:
        """Of the only zone; NaN where there are several."""
        return self.zones[0].served.recipe.rules.threshold if len(self.zones) == 1 else float("nan")

    def recipes(self) -> Sequence[Recipe]:
        """What judges the next frame; called by the loop between two frames, which is when bundles are exchanged."""
        return [zone.recipe() for zone in self.zones]

    def zone(self, name: str | None) -> Zone:
        """The one that a command means.

        Args:
            name: None where the command names none.

        Raises:
            CommandRefusedError: There is no such zone, or several and none is named.
        """
        if name is None and len(self.zones) == 1:
            return self.zones[0]
        found = next((zone for zone in self.zones if zone.name and zone.name == name), None)
        if found is not None:
            return found
        names = ", ".join(zone.name for zone in self.zones if zone.name)
        raise CommandRefusedError(
            what="this station has several zones" if name is None else f"this station has no zone {name!r}",
            remedy=f"give one of them: {names}" if names else "name none: the station has one bundle",
        )
