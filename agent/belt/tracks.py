"""Follows what is on the belt from picture to picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.belt.belt_motion import BeltMotion
from agent.belt.displacement import Steps
from agent.belt.outlines import MOST_OUTLINES, Outline, outline_of
from agent.belt.track import Track

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_MISSING = 3
_MOSTLY = 0.6
_PARTLY = 0.3
_GROWN = 1.3
_STILL_IN_VIEW = 0.25
_STANDS, _RESTS = 0.25, 20.0
_DOUBTED = 8
_LEAST_STEPS, _LEAST_STEPS_OF_GRAIN = 2, 5


class Tracks:
    """The things in view, at most MOST_OUTLINES, for one size of picture.

    Attributes:
        motion: Of the belt.
        followed: What is in view, or was until a moment ago.
    """

    def __init__(self, picture: tuple[int, int]) -> None:
        self.motion = BeltMotion()
        self.followed: list[Track] = []
        self.pictures = 0
        self._picture = picture
        self._doubtful = 0
        self._last_ns: int | None = None

    def update(self, outlines: Sequence[Outline], captured_ns: int) -> list[Track]:
        """Find each thing in the next picture; returns those that have gone."""
        elapsed_s = 0.0 if self._last_ns is None else max(0.0, (captured_ns - self._last_ns) / 1e9)
        self._last_ns = captured_ns
        self.pictures += 1
        steps = Steps(self.followed, outlines, self._picture)
        # A large outline is better evidence than a crumb or a reflection.
        weight = np.sqrt([track.outline.area * track.outline.strength for track in self.followed])
        trust = np.array([self._trust(track) for track in self.followed]) * weight / max(1.0, weight.max(initial=0.0))
        displacement, is_seen = steps.displacement(
            self.motion.likely(elapsed_s), trust, self.motion.axis, self.motion.longest(elapsed_s)
        )
        pairs = _nearest(steps.distance(displacement))
        is_certain = any(
            outlines[column].is_whole and self.followed[row].outline.is_whole and trust[row] for row, column in pairs
        )
        self.motion.add(displacement, elapsed_s, is_seen=is_seen, is_certain=is_certain)
        for track in self.followed:
            track.carry(displacement)
            track.is_in_other = False
        for row, column in pairs:
            self.followed[row].see(outlines[column], captured_ns, self.motion.way)
        seen = {row for row, _ in pairs}
        lost = [track for row, track in enumerate(self.followed) if row not in seen]
        free = [outline for column, outline in enumerate(outlines) if column not in {column for _, column in pairs}]
        free = self._follow_otherwise(lost, free, outlines, captured_ns)
        gone = [track for track in self.followed if self._has_gone(track)]
        self.followed = [track for track in self.followed if track not in gone]
        self._begin(free)
        self._note_pieces()
        self._doubt(is_seen=is_seen or not outlines)
        return gone

    def is_certain(self, track: Track) -> bool:
        """Whether it is something on the belt: it moves with it, and grain of the belt does not look so for long.

        What comes into view with the belt is so less likely than what appears elsewhere, as grain and hands do.
        """
        step = self.motion.usual_step
        axis = 0 if abs(step[0]) >= abs(step[1]) else 1
        before = track.first_sides.moved((-2 * step[0], -2 * step[1]))  # a frame may be missing
        was_in_view = before[axis] > 1 and before[axis + 2] < self._picture[1 - axis] - 1
        is_from_nowhere = was_in_view and track.first_seen > 1
        least = _LEAST_STEPS_OF_GRAIN if is_from_nowhere else _LEAST_STEPS
        return track.has_moved and track.with_belt >= least and not track.is_foreign

    def standing(self) -> list[Track]:
        """What stands while the belt moves by a quarter of the picture; far longer if it once moved, as a hand does."""
        length = max(self._picture)
        return [
            track
            for track in self.followed
            if track.rests_for(self.motion.way) >= (_RESTS if track.has_moved else _STANDS) * length
        ]

    def _note_pieces(self) -> None:
        """Count for each thing the pictures in which it was a piece of one that is followed as long or longer."""
        for track in self.followed:
            if track.is_in_other:
                track.as_piece += any(
                    track not in other.covers
                    and not other.is_foreign
                    and other.outline.area > 2 * track.outline.area
                    and other.outline.sides.shared_area(track.sides) >= _MOSTLY * track.sides.area
                    for other in self.followed
                    if other is not track
                )

    def _doubt(self, *, is_seen: bool) -> None:
        """Things wholly in view move, but none as the belt is thought to, for some time: its direction is wrong."""
        whole = [track for track in self.followed if track.outline.is_whole and track.has_moved and not track.missing]
        is_odd = bool(whole) and all(track.is_foreign for track in whole)
        if self.motion.axis is None or (is_seen and not is_odd):
            self._doubtful = 0
            return
        self._doubtful += 1
        if self._doubtful >= _DOUBTED:
            self.motion.forget_direction()
            for track in whole:
                track.astray = 0

    def stops_following(self, track: Track) -> None:
        """Forget it."""
        self.followed = [other for other in self.followed if other is not track]

    def _trust(self, track: Track) -> float:
        """What comes from the side of the belt says nothing about it."""
        direction = self.motion.axis
        if direction is not None:
            across = 1 if abs(direction[0]) >= abs(direction[1]) else 0
            if track.is_cut[across] or track.is_cut[across + 2]:
                return 0.0
        return track.trust(self.pictures)

    def _follow_otherwise(
        self, lost: list[Track], free: list[Outline], outlines: Sequence[Outline], captured_ns: int
    ) -> list[Outline]:
        """Things in a common outline, in pieces, or moved otherwise than the belt; returns the outlines left."""
        for track in sorted(lost, key=lambda track: -track.sides.area):
            whole = _common_outline(track, outlines)
            pieces = [] if whole is not None else _pieces(track, free)
            if whole is not None:
                track.in_other, track.is_in_other, track.missing = track.in_other + 1, True, 0
            elif len(pieces) > 1:
                together = outline_of(
                    np.concatenate([piece.contour for piece in pieces]), self._picture, max(p.strength for p in pieces)
                )
                track.see(together, captured_ns, self.motion.way)
                track.in_pieces += 1
                free = [outline for outline in free if outline not in pieces]
            elif (near := _overlapping(track, free)) is not None:
                track.stray(near, captured_ns, self.motion.way, counts=self.motion.direction is not None)
                free = [outline for outline in free if outline is not near]
            else:
                track.missing += 1
        return free

    def _begin(self, outlines: list[Outline]) -> None:
        for outline in outlines[: MOST_OUTLINES - len(self.followed)]:
            covered = [
                track
                for track in self.followed
                if track.is_in_other and track.sides.shared_area(outline.sides) >= _MOSTLY * track.sides.area
            ]
            if not covered and any(
                track.sides.shared_area(outline.sides) >= _MOSTLY * outline.sides.area
                and (track.is_in_other or outline.area < track.outline.area / 2)
                for track in self.followed
            ):
                continue  # a piece of something that is followed
            self.followed.append(Track(outline, outline.sides, self.pictures, self.motion.way, covers=covered))

    def _has_gone(self, track: Track) -> bool:
        rows, columns = self._picture
        sides = track.sides
        visible = max(0.0, min(sides.right, columns) - max(sides.left, 0)) * max(
            0.0, min(sides.bottom, rows) - max(sides.top, 0)
        )
        if visible < _STILL_IN_VIEW * sides.area and (track.missing or track.is_in_other):
            return True
        return track.missing > _MOST_MISSING


def _nearest(distance: np.ndarray) -> list[tuple[int, int]]:
    """Pairs that lie within 1, the nearest first, each row and column once."""
    pairs: list[tuple[int, int]] = []
    rest = distance.copy()
    while rest.size and rest.min() < 1:
        row, column = (int(index) for index in np.unravel_index(int(rest.argmin()), rest.shape))
        pairs.append((row, column))
        rest[row], rest[:, column] = np.inf, np.inf
    return pairs


def _common_outline(track: Track, outlines: Sequence[Outline]) -> Outline | None:
    """A larger outline in which a thing lies that was seen alone before."""
    if not track.seen_as:
        return None
    for outline in outlines:
        if (
            track.sides.shared_area(outline.sides) >= _MOSTLY * track.sides.area
            and outline.area > _GROWN * track.outline.area
        ):
            return outline
    return None


def _pieces(track: Track, free: Sequence[Outline]) -> list[Outline]:
    if not track.outline.is_whole:
        return []
    return [outline for outline in free if track.sides.shared_area(outline.sides) >= _MOSTLY * outline.sides.area]


def _overlapping(track: Track, free: Sequence[Outline]) -> Outline | None:
    """The outline that lies most where the thing was, or would be."""
    shared = [
        max(track.sides.shared_area(outline.sides), track.outline.sides.shared_area(outline.sides))
        / max(1.0, min(track.sides.area, outline.sides.area))
        for outline in free
    ]
    if not shared or max(shared) < _PARTLY:
        return None
    return free[int(np.argmax(shared))]
