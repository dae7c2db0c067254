"""How the belt runs: its displacement so far, its direction, and where it may be in the next picture."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from agent.belt.displacement import Vector

_REMEMBERED = 15
_STANDS_PX = 0.5
_KNOWN_PX = 8.0
_KNOWN_STEPS = 3
_FORGET = 0.95
_FASTER = 3.0


class BeltMotion:
    """Follows the displacements between pictures.

    Attributes:
        way: Displacement since the first picture, (x, y), in pixels of the small picture.
        length_px: The same along its path.
    """

    def __init__(self) -> None:
        self.way: Vector = (0.0, 0.0)
        self.length_px = 0.0
        self._recent = np.zeros(2)
        self._elapsed_s = 0.0
        self._direction: Vector | None = None
        self._last: Vector = (0.0, 0.0)
        self._running: deque[Vector] = deque(maxlen=_REMEMBERED)
        self._steps = 0

    def likely(self, elapsed_s: float) -> list[Vector]:
        """Displacements to try for the next picture: as in the last one, as usual, none."""
        tried = [(self._last[0] * elapsed_s, self._last[1] * elapsed_s)]
        if self._running:
            usual = np.median(np.array(self._running), axis=0) * elapsed_s
            tried.append((float(usual[0]), float(usual[1])))
        return [*tried, (0.0, 0.0)]

    def add(self, displacement: Vector, elapsed_s: float, *, is_seen: bool, is_certain: bool) -> None:
        """The belt has moved by this.

        Args:
            displacement: Since the last picture.
            elapsed_s: The time between both.
            is_seen: Something in the picture shows it.
            is_certain: Something that is wholly in view does.
        """
        length = float(np.hypot(*displacement))
        self.way = self.way[0] + displacement[0], self.way[1] + displacement[1]
        self.length_px += length
        if not is_seen or elapsed_s <= 0:
            return
        self._elapsed_s = elapsed_s
        speed = displacement[0] / elapsed_s, displacement[1] / elapsed_s
        self._last = speed
        if length >= _STANDS_PX:
            self._running.append(speed)
            self._steps += is_certain
        self._recent = _FORGET * self._recent + np.array(displacement)
        strength = float(np.hypot(*self._recent))
        if strength >= _KNOWN_PX or (self._direction is None and strength >= _KNOWN_PX / 2 and len(self._running) > 1):
            self._direction = float(self._recent[0]) / strength, float(self._recent[1]) / strength

    @property
    def direction(self) -> Vector | None:
        """The direction of the belt, of length 1; None while it is not known."""
        return self._direction

    @property
    def axis(self) -> Vector | None:
        """The direction, once it is certain enough to refuse other ones."""
        return self._direction if self._steps >= _KNOWN_STEPS else None

    @property
    def usual_step(self) -> Vector:
        """Displacement from one picture to the next while the belt runs."""
        if not self._running:
            return 0.0, 0.0
        step = np.median(np.array(self._running), axis=0) * self._elapsed_s
        return float(step[0]), float(step[1])

    def longest(self, elapsed_s: float) -> float:
        """What the belt can have moved at most: it does not start to run several times as fast between two pictures."""
        if self.axis is None:
            return float("inf")
        fastest = float(np.hypot(*np.array(self._running).T).max()) * elapsed_s
        return _FASTER * fastest + _KNOWN_PX

    def forget_direction(self) -> None:
        """It was wrong."""
        self._direction, self._steps = None, 0
        self._recent[:] = 0
        self._running.clear()
        self._last = (0.0, 0.0)
