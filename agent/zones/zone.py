"""A zone: the region of the frame that is inspected with one bundle. Often it is the only one."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

from agent.zones.active_bundle import CommandedThresholds
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from agent.zones.active_bundle import ActiveBundle
    from agent.zones.recipe import Recipe
    from agent.zones.versions import Versions

log = logging.getLogger(__name__)


def folder_of(name: str, state_dir: Path) -> Path:
    """Folder for the state of a zone; the state folder itself for a zone without a name."""
    return state_dir / "zones" / name if name else state_dir


def versions_file(folder: Path) -> Path:
    """File in the folder of a zone that lists the bundles that were active there."""
    return folder / "versions.json"


def left_over(zones: Collection[str], state_dir: Path) -> list[Path]:
    """Version files of zones that are no longer configured.

    Args:
        zones: Names of the configured zones.
        state_dir: State folder of the station.
    """
    files = {versions_file(folder) for folder in (state_dir, *(state_dir / "zones").glob("*"))}
    return sorted(
        path for path in files - {versions_file(folder_of(name, state_dir)) for name in zones} if path.exists()
    )


class Offer(Protocol):
    """A bundle offered to a zone. Both methods are called once, in this order, on the loop's thread."""

    def load(self) -> ActiveBundle:
        """The bundle; a ShiftwatchError leaves everything as it was."""

    def done(self, error: ShiftwatchError | None) -> None:
        """The bundle is active, or was not activated because of an error."""


class Zone:
    """Set from any thread; the loop obeys from its next part on.

    Args:
        name: Empty where the station has one zone.
        folder: Folder for its state.
        configured: Folder of the bundle that the configuration names.
        versions: The bundles that were active in it.
        active: The first active bundle; a commanded threshold is applied to it.
    """

    def __init__(self, name: str, folder: Path, configured: Path, versions: Versions, active: ActiveBundle) -> None:
        self.name = name
        self.folder = folder
        self.configured = configured
        self.versions = versions
        self._commanded = CommandedThresholds(folder / "threshold.json")
        self._lock = threading.Lock()
        self._active = self._commanded.applied_to(active)
        self._offer: Offer | None = None

    @property
    def noted(self) -> Mapping[str, str]:
        """Its name, if it has one, as a field of log entries and messages."""
        return {"zone": self.name} if self.name else {}

    @property
    def active(self) -> ActiveBundle:
        """The active bundle."""
        return self._active

    def set_threshold(self, threshold: float | None) -> None:
        """Set the score above which a part is NotOK; None restores the threshold before any command.

        Raises:
            OSError: It cannot be kept on disk, and is not changed.
        """
        with self._lock:
            active = self._active.with_threshold(self._active.base_threshold if threshold is None else threshold)
            self._commanded.keep(active)
            self._active = active
        try:
            self.versions.note_threshold(active.bundle.identity, active.recipe.rules.threshold)
        except OSError as error:
            log.warning("the list of bundles does not have the commanded threshold: %s", error)

    def offer(self, offer: Offer) -> None:
        """Activate another bundle before the next part."""
        self._offer = offer

    def recipe_for_next_part(self) -> Recipe:
        """The recipe of the active bundle, after any pending swap; called by the loop between two parts."""
        if self._offer is not None:
            offer, self._offer = self._offer, None
            offer.done(self._swap(offer))
        return self._active.recipe

    def close(self) -> None:
        """Release the engine."""
        self._active.close()

    def _swap(self, offer: Offer) -> ShiftwatchError | None:
        try:
            active = offer.load()
        except ShiftwatchError as error:
            return error
        with self._lock:
            before, self._active = self._active, self._commanded.applied_to(active)
        before.close()
        return None
