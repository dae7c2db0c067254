"""The state of the station without what comes and goes: ``status`` and the alert about a lost camera follow it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Condition(NamedTuple):
    """A state and why."""

    state: str
    reason: str = ""


RUNNING = Condition("running")


class SettledState:
    """Changes when the station has been in another state for some time, without returning to the settled one.

    So one damaged frame is no fault, and a camera that comes and goes is one loss. Other faults that follow each other
    while the station should run settle as one, with the reason of the last.

    Args:
        after_s: That time.
        clock_s: Monotonic clock.

    Attributes:
        value: The settled state; None before the first. The first, and the end of a first that is ``passing``, count at
            once.
    """

    def __init__(self, after_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.value: Condition | None = None
        self._after_s = after_s
        self._clock_s = clock_s
        self._latest: Condition | None = None
        self._since_s = 0.0
        self._is_passing = False

    def note(self, seen: Condition, *, passing: bool = False) -> None:
        """Note the present state; ``passing`` is one that only the start of the station has."""
        now_s = self._clock_s()
        if seen != self._latest and not (self.value == RUNNING != self._latest and seen != RUNNING):
            self._since_s = now_s
        self._latest = seen
        is_first = self.value is None or (self._is_passing and seen == RUNNING)
        if is_first or now_s - self._since_s >= self._after_s:
            self.value, self._is_passing = seen, passing
