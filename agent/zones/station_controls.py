"""What commands change and the loop obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import CommandRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.zones.recipe import Recipe
    from agent.zones.zone import Zone


class StationControls:
    """The controls of a station.

    Attributes:
        zones: At least one; a single zone may have no name.
        paused: Why the inspection is paused; None while it runs. It is not kept: an agent that restarts inspects.
    """

    def __init__(self, zones: Sequence[Zone]) -> None:
        self.zones = zones
        self.paused: str | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the inspection is paused."""
        return self.paused is not None

    def active_recipes(self) -> Sequence[Recipe]:
        """The recipe of each zone; swaps nothing."""
        return [zone.active.recipe for zone in self.zones]

    def recipes_for_next_part(self) -> Sequence[Recipe]:
        """The recipe of each zone, after any pending swap; called by the loop between two parts."""
        return [zone.recipe_for_next_part() for zone in self.zones]

    @property
    def threshold(self) -> float:
        """Threshold of the only zone; NaN where there are several."""
        return self.zones[0].active.recipe.rules.threshold if len(self.zones) == 1 else float("nan")

    def zone(self, name: str | None) -> Zone:
        """The zone that a command names; None means the only one.

        Raises:
            CommandRefusedError: There is no such zone, or there are several and none is named.
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
