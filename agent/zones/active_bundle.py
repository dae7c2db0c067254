"""The active bundle of a zone, and the thresholds that commands gave to bundles."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from calibration.atomic_file import replace_file
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.messages.records import Payload
    from agent.zones.recipe import Recipe
    from calibration.bundle.bundle import Bundle

log = logging.getLogger(__name__)

_MOST = 50
_Kept: TypeAlias = "dict[tuple[str, float], float]"


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """A bundle with its loaded engine.

    Attributes:
        recipe: What the loop uses of it.
        base_threshold: Threshold before any command: the configured one, or the bundle's.
        reason: Why this backend was chosen, for people.
        close: Releases the engine; called by the loop's thread.
        curve: What other thresholds would reject and find, see `threshold_curve`; None if calibration did not measure
            it.
    """

    bundle: Bundle
    recipe: Recipe
    base_threshold: float
    reason: str
    close: Callable[[], object]
    curve: Payload | None = None

    def with_threshold(self, threshold: float) -> ActiveBundle:
        """The same bundle with another threshold."""
        rules = replace(self.recipe.rules, threshold=threshold)
        drift = None if self.recipe.drift is None else self.recipe.drift.with_threshold(threshold)
        return replace(self, recipe=replace(self.recipe, rules=rules, drift=drift))


class CommandedThresholds:
    """The thresholds that commands gave, kept over restarts in one small file: each bundle has its own.

    One is void when the configured threshold is another.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def applied_to(self, active: ActiveBundle) -> ActiveBundle:
        """The bundle with the threshold that was commanded for it, if there is one; a void one is forgotten."""
        kept = self._kept()
        try:
            if _key(active) in kept:
                return active.with_threshold(kept[_key(active)])
            others = _of_others(kept, active)
            if others != kept:
                self._write(others)
        except (OSError, ShiftwatchError) as error:
            self._warn(error)
        return active

    def keep(self, active: ActiveBundle) -> None:
        """Write down the threshold of the active bundle as the commanded one.

        Raises:
            OSError: It cannot be written.
        """
        kept = _of_others(self._kept(), active)
        if active.recipe.rules.threshold != active.base_threshold:
            kept[_key(active)] = active.recipe.rules.threshold
        self._write(kept)

    def _kept(self) -> _Kept:
        """By identity of the bundle and its threshold before the command; the last one commanded is the last."""
        try:
            stored = json.loads(self._path.read_text())
            entries = [(*entry["for"], entry["threshold"]) for entry in (*stored.get("before", ()), stored)]
            return {(str(identity), float(base)): float(threshold) for identity, base, threshold in entries}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            self._warn(error)
        return {}

    def _write(self, kept: _Kept) -> None:
        if not kept:
            self._path.unlink(missing_ok=True)
            return
        *before, last = [{"for": key, "threshold": threshold} for key, threshold in kept.items()][-_MOST:]
        # Where version 0.1.0 had the only one, and looks for it.
        replace_file(self._path, json.dumps({**last, **({"before": before} if before else {})}).encode())

    def _warn(self, error: Exception) -> None:
        log.warning("the commanded threshold in %s is not usable: %s", self._path, error)


def _of_others(kept: _Kept, active: ActiveBundle) -> _Kept:
    return {key: threshold for key, threshold in kept.items() if key[0] != active.bundle.identity}


def _key(active: ActiveBundle) -> tuple[str, float]:
    return active.bundle.identity, active.base_threshold
