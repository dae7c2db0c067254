"""One thing in view, followed from picture to picture."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from agent.belt.displacement import Vector
    from agent.belt.outlines import Outline, Sides
    from agent.camera import Frame

_REMEMBERED = 15
_LEAST_ASTRAY = 3
MOVED_PX = 5.0
"""What has come this far, in pixels of the small picture, moves: an outline is exact to one or two."""


@dataclass(frozen=True, slots=True)
class BestView:
    """The frame in which a part is nearest to the middle of the picture, among those as sharp."""

    frame: Frame
    outline: Outline
    sharpness: float
    distance: float


@dataclass(slots=True, eq=False)
class Track:
    """What is known of it.

    Attributes:
        outline: As it was seen last.
        sides: Where it is now, by the belt's displacement if it is not seen.
        first_seen: Number of the picture.
        first_way: The belt's displacement then, since its first picture.
        first_sides: Where it was then.
        with_belt, astray: Pictures in which it had moved as the belt, or not so.
        has_moved: Whether it is certain that it moves.
        missing: Pictures in a row without it.
        in_other: Pictures in which it was a part of a larger outline; ``is_in_other``: of the last one.
        as_piece: Of these, those in which the larger one was there before.
        in_pieces: Pictures in which it was seen as several outlines.
        covers: Other things that were seen before as themselves, and now in its outline.
        is_decided: It is reported, or will not be.
        came: It was seen before the middle of the picture.
        best: Its best view so far; None while it was not wholly in view.
        places: Time and middle of the last views in which it was whole.
        seen_as: Its outlines in these.
    """

    outline: Outline
    sides: Sides
    first_seen: int
    first_way: Vector
    with_belt: int = 0
    astray: int = 0
    has_moved: bool = False
    missing: int = 0
    in_other: int = 0
    is_in_other: bool = False
    as_piece: int = 0
    in_pieces: int = 0
    is_decided: bool = False
    came: bool = False
    first_sides: Sides = field(init=False)
    covers: list[Track] = field(default_factory=list)
    best: BestView | None = None
    places: deque[tuple[int, Vector]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    seen_as: deque[Outline] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _in_a_row: int = 0
    _rests: tuple[Outline, Vector] | None = None
    _anchor: tuple[Outline, Vector] | None = None

    def __post_init__(self) -> None:
        """Keep its first place."""
        self.first_sides = self.sides

    @property
    def is_cut(self) -> tuple[bool, bool, bool, bool]:
        """Which sides lay on the picture's edge."""
        return self.outline.is_cut

    @property
    def middle(self) -> Vector:
        """Where its middle is now."""
        then, now = self.outline.sides, self.sides
        return self.outline.middle[0] + now.left - then.left, self.outline.middle[1] + now.top - then.top

    @property
    def is_foreign(self) -> bool:
        """Whether it moves otherwise than the belt."""
        return self._in_a_row > _LEAST_ASTRAY or self.astray >= max(_LEAST_ASTRAY, self.with_belt + 1)

    def trust(self, picture: int) -> float:
        """How much its step says about the belt, 0 to 1: what never moved may be part of the scene."""
        if self.is_foreign:
            return 0.0
        return 1.0 if self.has_moved else 0.2 / (1 + picture - self.first_seen)

    def carry(self, displacement: Vector) -> None:
        """Move it with the belt, before it is looked for; what doesn't move so stays."""
        if not self.is_foreign:
            self.sides = self.sides.moved(displacement)

    def see(self, outline: Outline, captured_ns: int, way: Vector) -> None:
        """It was seen where the belt has carried it, which is ``way`` since its first picture."""
        self._place(outline, captured_ns, way)
        if self._anchor is None or (outline.is_whole and not self._anchor[0].is_whole):
            self._anchor = outline, way
        if outline.is_whole:
            self.seen_as.append(outline)
        if self._has_left_its_place(outline, way):
            self.astray, self._in_a_row = self.astray + 1, self._in_a_row + 1
        else:
            self.with_belt, self._in_a_row = self.with_belt + 1, 0

    def stray(self, outline: Outline, captured_ns: int, way: Vector, *, counts: bool) -> None:
        """It was seen elsewhere, which counts if the belt's direction is known."""
        self._place(outline, captured_ns, way)
        self.astray, self._in_a_row = self.astray + counts, self._in_a_row + counts
        if outline.is_whole:
            self.seen_as.append(outline)

    def rests_for(self, way: Vector) -> float:
        """How far the belt has moved since this was seen to move, or first seen."""
        since = self.first_way if self._rests is None else self._rests[1]
        return float(np.hypot(way[0] - since[0], way[1] - since[1]))

    def _place(self, outline: Outline, captured_ns: int, way: Vector) -> None:
        place, _ = self._rests = self._rests or (self.outline, self.first_way)
        if float(np.hypot(*_own_step(place, outline))) >= MOVED_PX:
            self.has_moved, self._rests = True, (outline, way)
        self.outline, self.sides, self.missing = outline, outline.sides, 0
        if outline.is_whole:
            self.places.append((captured_ns, outline.middle))

    def _has_left_its_place(self, outline: Outline, way: Vector) -> bool:
        """Whether the belt has gone on without it; lenses and slopes distort a way by less than a third."""
        if self._anchor is None:
            return False
        first, then = self._anchor
        carried = way[0] - then[0], way[1] - then[1]
        step = _own_step(first, outline, carried)
        off = float(np.hypot(step[0] - carried[0], step[1] - carried[1]))
        allowed = 4 + 0.3 * float(np.hypot(*carried))
        if off > allowed + 0.15 * outline.size[1]:
            return True
        # Of what the edge cuts, the other axis says something too: it changes there by its own size at most.
        return any(
            abs(outline.middle[axis] - first.middle[axis] - carried[axis]) > allowed + outline.size[0] / 2
            for axis in (0, 1)
            if not (outline.is_cut[axis] or outline.is_cut[axis + 2])
        )


def _own_step(before: Outline, now: Outline, unknown: Vector = (0.0, 0.0)) -> Vector:
    """How far it has moved between two views: its middle, or the sides that the picture's edge does not cut."""
    if before.is_whole and now.is_whole:
        return now.middle[0] - before.middle[0], now.middle[1] - before.middle[1]
    steps = []
    for axis in (0, 1):
        crosses = not any(outline.is_cut[side] for outline in (before, now) for side in (axis, axis + 2))
        free = [] if crosses else [s for s in (axis, axis + 2) if not before.is_cut[s] and not now.is_cut[s]]
        moves = [now.sides[side] - before.sides[side] for side in free]
        steps.append(sum(moves) / len(moves) if moves else unknown[axis])
    return steps[0], steps[1]
