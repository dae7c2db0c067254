"""What commands change and the loop obeys, from its next frame on."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from calibration.durable import replace_file
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.recipe import Recipe
    from calibration.bundle import Bundle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """The bundle that judges.

    Attributes:
        recipe: What the loop takes of it.
        base_threshold: Before any command: the configured one, or the bundle's.
        reason: Why this backend, for people.
        close: Lets go of the engine; called by the loop's thread.
    """

    bundle: Bundle
    recipe: Recipe
    base_threshold: float
    reason: str
    close: Callable[[], object]

    def with_threshold(self, threshold: float) -> Served:
        """The same with another threshold."""
        rules = replace(self.recipe.rules, threshold=threshold)
        drift = None if self.recipe.drift is None else self.recipe.drift.at(threshold)
        return replace(self, recipe=replace(self.recipe, rules=rules, drift=drift))


class CommandedThreshold:
    """The threshold that a command gave, also after a restart: one small file.

    It is void once the bundle or the configured threshold is another: whoever changed these meant it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, served: Served) -> Served:
        """Served with the threshold that was commanded for it, if one was."""
        try:
            known = json.loads(self._path.read_text())
            if known["for"] == self._key(served):
                return served.with_threshold(float(known["threshold"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, ShiftwatchError) as error:
            log.warning("the commanded threshold in %s cannot be read and is not used: %s", self._path, error)
        return served

    def keep(self, served: Served) -> None:
        """From now on its threshold is the commanded one.

        Raises:
            OSError: It cannot be written.
        """
        if served.recipe.rules.threshold == served.base_threshold:
            self._path.unlink(missing_ok=True)
        else:
            known = {"for": self._key(served), "threshold": served.recipe.rules.threshold}
            replace_file(self._path, json.dumps(known).encode())

    def _key(self, served: Served) -> list[str | float]:
        return [served.bundle.identity, served.base_threshold]


class Controls:
    """Set from any thread, obeyed by the loop.

    Args:
        served: What judges first.
        commanded: Where a commanded threshold is kept.

    Attributes:
        paused: Why nothing is inspected; None while it is. It ends with the process: an agent that comes back inspects.
    """

    def __init__(self, served: Served, commanded: CommandedThreshold) -> None:
        self.paused: str | None = None
        self._commanded = commanded
        self._lock = threading.Lock()
        self._served = commanded.of(served)
        self._offered: tuple[Callable[[], Served], Callable[[ShiftwatchError | None], object]] | None = None

    @property
    def served(self) -> Served:
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

    def exchange(self, make: Callable[[], Served], ended: Callable[[ShiftwatchError | None], object]) -> None:
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

    def _exchanged(self, make: Callable[[], Served]) -> ShiftwatchError | None:
        try:
            served = make()
        except ShiftwatchError as error:
            return error
        with self._lock:
            before, self._served = self._served, self._commanded.of(served)
        before.close()
        return None
