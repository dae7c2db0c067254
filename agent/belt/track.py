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
        with_belt, astray: Pictures in which it had moved as the belt, or not so.
        moved_px: Its way so far.
        missing: Pictures in a row without it.
        in_other: The outlines of several things in one: pictures in which it was a part of such a one.
        in_pieces: Pictures in which it was seen as several outlines.
        covers: Other things that were seen before as themselves, and now in its outline.
        is_decided: It is reported, or will not be.
        seen_as: The last outlines in which it was wholly in view.
    """

    outline: Outline
    sides: Sides
    first_seen: int
    with_belt: int = 0
    astray: int = 0
    moved_px: float = 0.0
    missing: int = 0
    in_other: int = 0
    in_pieces: int = 0
    is_in_other: bool = False
    is_beside: bool = False
    is_decided: bool = False
    covers: list[Track] = field(default_factory=list)
    best: BestView | None = None
    places: deque[tuple[int, Vector]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    seen_as: deque[Outline] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    anchor: tuple[Vector, Vector] | None = None

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
    def has_moved(self) -> bool:
        """Whether it is certain that it moves."""
        return self.moved_px >= MOVED_PX

    @property
    def is_foreign(self) -> bool:
        """Whether it moves otherwise than the belt."""
        return self.astray >= 3 and self.astray > self.with_belt

    def trust(self, picture: int) -> float:
        """How much its step says about the belt, 0 to 1: what never moved may be part of the scene."""
        if self.is_foreign:
            return 0.0
        return 1.0 if self.has_moved and self.with_belt else 0.2 / (1 + picture - self.first_seen)

    def carry(self, displacement: Vector) -> None:
        """Move it with the belt, before it is looked for."""
        self.sides = self.sides.moved(displacement)

    def see(self, outline: Outline, captured_ns: int, way: Vector, displacement: Vector) -> None:
        """It was seen where the belt has carried it.

        Args:
            outline: In this picture.
            captured_ns: Time of the picture.
            way: The belt's displacement since its first picture.
            displacement: The belt's since the last picture.
        """
        self.outline, self.sides, self.missing = outline, outline.sides, 0
        self.moved_px += float(np.hypot(*displacement))
        self.places.append((captured_ns, outline.middle))
        if not outline.is_whole:
            self.with_belt += 1
            return
        self.seen_as.append(outline)
        if self.anchor is None:
            self.anchor = (outline.middle, way)
        if self._is_off(outline, way):
            self.astray += 1
        else:
            self.with_belt += 1

    def stray(self, outline: Outline, captured_ns: int) -> None:
        """It was seen elsewhere."""
        before = self.outline.middle
        self.moved_px += float(np.hypot(outline.middle[0] - before[0], outline.middle[1] - before[1]))
        self.outline, self.sides, self.missing = outline, outline.sides, 0
        self.places.append((captured_ns, outline.middle))
        self.astray += 1

    def _is_off(self, outline: Outline, way: Vector) -> bool:
        """Whether it has left the place on the belt where it was first wholly in view; lenses and slopes distort."""
        if self.anchor is None:
            return False
        (x, y), then = self.anchor
        carried = way[0] - then[0], way[1] - then[1]
        off = np.hypot(outline.middle[0] - x - carried[0], outline.middle[1] - y - carried[1])
        return bool(off > 4 + 0.15 * outline.size[0] + 0.3 * np.hypot(*carried))
