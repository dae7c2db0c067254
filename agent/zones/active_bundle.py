"""The active bundle of a zone, and the threshold that a command gave it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from calibration.atomic_file import replace_file
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.zones.recipe import Recipe
    from calibration.bundle.bundle import Bundle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """A bundle with its loaded engine.

    Attributes:
        recipe: What the loop uses of it.
        base_threshold: Threshold before any command: the configured one, or the bundle's.
        reason: Why this backend was chosen, for people.
        close: Releases the engine; called by the loop's thread.
    """

    bundle: Bundle
    recipe: Recipe
    base_threshold: float
    reason: str
    close: Callable[[], object]

    def with_threshold(self, threshold: float) -> ActiveBundle:
        """The same bundle with another threshold."""
        rules = replace(self.recipe.rules, threshold=threshold)
        drift = None if self.recipe.drift is None else self.recipe.drift.with_threshold(threshold)
        return replace(self, recipe=replace(self.recipe, rules=rules, drift=drift))


class CommandedThreshold:
    """The threshold that a command gave, kept over restarts in one small file.

    It becomes void when the bundle or the configured threshold changes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def applied_to(self, active: ActiveBundle) -> ActiveBundle:
        """The bundle with the threshold that was commanded for it, if there is one."""
        try:
            stored = json.loads(self._path.read_text())
            if stored["for"] == self._key(active):
                return active.with_threshold(float(stored["threshold"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, ShiftwatchError) as error:
            log.warning("the commanded threshold in %s cannot be read and is not used: %s", self._path, error)
        return active

    def keep(self, active: ActiveBundle) -> None:
        """Write down the threshold of the active bundle as the commanded one.

        Raises:
            OSError: It cannot be written.
        """
        if active.recipe.rules.threshold == active.base_threshold:
            self._path.unlink(missing_ok=True)
        else:
            stored = {"for": self._key(active), "threshold": active.recipe.rules.threshold}
            replace_file(self._path, json.dumps(stored).encode())

    def _key(self, active: ActiveBundle) -> list[str | float]:
        return [active.bundle.identity, active.base_threshold]
