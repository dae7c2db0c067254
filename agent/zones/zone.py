"""What is inspected with one bundle: a part of the picture among others, or all that is inspected."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.zones.served import CommandedThreshold
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from agent.zones.recipe import Recipe
    from agent.zones.served import ActiveBundle
    from agent.zones.versions import Versions


def folder_of(name: str, state_dir: Path) -> Path:
    """Where the state of a zone lies: the state folder itself where it has no name."""
    return state_dir / "zones" / name if name else state_dir


def versions_file(folder: Path) -> Path:
    """Of a zone: which bundles it has served."""
    return folder / "versions.json"


def left_over(zones: Collection[str], state_dir: Path) -> list[Path]:
    """What zones have served that are not configured any more; the whole station, where it had one bundle.

    Args:
        zones: Names of those that are.
        state_dir: Of the station.
    """
    files = {versions_file(folder) for folder in (state_dir, *(state_dir / "zones").glob("*"))}
    return sorted(
        path for path in files - {versions_file(folder_of(name, state_dir)) for name in zones} if path.exists()
    )


class Zone:
    """Set from any thread, obeyed by the loop from its next frame on.

    Args:
        name: Empty where there is no other.
        folder: For its state.
        configured: Folder of the bundle that the configuration names.
        versions: What it has served.
        served: What judges first, unless a threshold was commanded for it.
    """

    def __init__(self, name: str, folder: Path, configured: Path, versions: Versions, served: ActiveBundle) -> None:
        self.name = name
        self.folder = folder
        self.configured = configured
        self.versions = versions
        self._commanded = CommandedThreshold(folder / "threshold.json")
        self._lock = threading.Lock()
        self._served = self._commanded.of(served)
        self._offered: tuple[Callable[[], ActiveBundle], Callable[[ShiftwatchError | None], object]] | None = None

    @property
    def noted(self) -> Mapping[str, str]:
        """Its name where it has one, for entries and messages."""
        return {"zone": self.name} if self.name else {}

    @property
    def served(self) -> ActiveBundle:
        """What judges now."""
        return self._served

    def set_threshold(self, threshold: float | None) -> None:
        """A score above it is NotOK; None goes back to the one before any command.

        Raises:
            OSError: It cannot be kept on disk, and is not changed.
        """
        with self._lock:
            served = self._served.with_threshold(self._served.base_threshold if threshold is None else threshold)
            self._commanded.keep(served)
            self._served = served

    def exchange(self, make: Callable[[], ActiveBundle], ended: Callable[[ShiftwatchError | None], object]) -> None:
        """Let another bundle judge, from the next frame on.

        Args:
            make: Gives it, on the loop's thread; a ShiftwatchError leaves everything as it was.
            ended: Told how it went, on the loop's thread.
        """
        self._offered = (make, ended)

    def recipe(self) -> Recipe:
        """What judges the next frame; called by the loop between two frames, which is when bundles are exchanged."""
        if self._offered is not None:
            (make, ended), self._offered = self._offered, None
            ended(self._exchanged(make))
        return self._served.recipe

    def close(self) -> None:
        """Let go of the engine."""
        self._served.close()

    def _exchanged(self, make: Callable[[], ActiveBundle]) -> ShiftwatchError | None:
        try:
            served = make()
        except ShiftwatchError as error:
            return error
        with self._lock:
            before, self._served = self._served, self._commanded.of(served)
        before.close()
        return None
