"""Parts that pass through the picture without stopping: each is reported once, at its best place.

frame -> small picture -> what is unlike the belt -> outlines -> tracks -> passed the middle -> a part, or why not
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.belt.best_view import better
from agent.belt.empty_belt import EmptyBelt
from agent.belt.outlines import Outline, find_outlines, mask_of
from agent.belt.part_size import Measures, PartSize, PartSizes, are_several, is_too_small
from agent.belt.passing_part import PassingPart, Problem
from agent.belt.small_picture import small_picture
from agent.belt.tracks import Tracks

if TYPE_CHECKING:
    from agent.belt.displacement import Vector
    from agent.belt.track import Track
    from agent.camera import Frame

_SPEED_OVER = 6
_UNSTEADY = 0.3
_INTRUSION_ENDS_NS = 1_000_000_000
_OFTEN = 0.5


class PassingParts:
    """Finds, follows and reports the parts on a belt; its direction, speed and look are found out on the way.

    A part is reported with the first frame in which its middle has passed the middle of the picture, so that parts
    come in the order of the belt; one that was not followed then (the first frames, a gap) when it leaves the picture.
    A group of parts that touch is one report, and so is each intrusion of a hand. Shadows, reflections, marks that are
    much fainter than the parts, and what stands while the belt moves are none.

    Order of calls: one call for each frame, from one thread, in the order of the camera. Frames may be missing.

    Args:
        crop_px: Width and height of each part's image, in frame pixels; None: as large as each part.
        is_turned: Turn the images so that the long side is upright.
        typical: Sizes of the parts, from teaching; None: they are found out from the parts that pass.
    """

    def __init__(
        self, crop_px: tuple[int, int] | None = None, *, is_turned: bool = False, typical: PartSize | None = None
    ) -> None:
        self._crop_px = crop_px
        self._is_turned = is_turned
        self._sizes = PartSizes(typical)
        self._frame_size: tuple[int, ...] = ()
        self._scale = 1.0
        self._intrusion_ns: int | None = None

    def __call__(self, frame: Frame) -> list[PassingPart]:
        """The parts that have passed with this frame, in the order of the belt; damaged frames are passed over."""
        if frame.is_damaged:
            return []
        picture = small_picture(frame.image)
        if frame.image.shape != self._frame_size:
            self._frame_size, self._scale = frame.image.shape, frame.image.shape[1] / picture.shape[1]
            self._belt, self._tracks = EmptyBelt(picture), Tracks((picture.shape[0], picture.shape[1]))
        outlines = find_outlines(self._belt.look(picture))
        gone = self._tracks.update(outlines, frame.captured_ns)
        self._belt.take_in(mask_of(outlines, (picture.shape[0], picture.shape[1])))
        self._note_views(frame)
        reports = [report for track in gone if (report := self._gone(track, frame)) is not None]
        reports += self._passed(frame)
        reports += self._intrusions(frame)
        self._absorb_scene()
        return reports

    def reset(self) -> None:
        """Forget belt and parts in view, as after a camera was lost or moved; the sizes of the parts stay known."""
        self._frame_size = ()

    @property
    def typical(self) -> PartSize | None:
        """Sizes of the parts that have passed, to be kept with what was taught; None while they are not known."""
        return self._sizes.usual()

    def _note_views(self, frame: Frame) -> None:
        for track in self._tracks.followed:
            track.came = track.came or self._place(track) < 0
            is_seen = not track.missing and not track.is_in_other
            if is_seen and not track.is_decided and track.outline.is_whole and not track.is_foreign:
                track.best = better(track.best, frame, track.outline, abs(self._place(track)), self._scale)

    def _passed(self, frame: Frame) -> list[PassingPart]:
        if self._tracks.motion.axis is None:
            return []
        waiting = [track for track in self._tracks.followed if not track.is_decided and self._is_ready(track)]
        waiting.sort(key=self._place, reverse=True)
        return [report for track in waiting if (report := self._decided(track, frame)) is not None]

    def _is_ready(self, track: Track) -> bool:
        return self._place(track) >= 0 and self._tracks.is_certain(track)

    def _place(self, track: Track) -> float:
        """How far the middle of a part is past the middle of the picture, along the belt."""
        direction = self._tracks.motion.direction or (1.0, 0.0)
        rows, columns = (side / self._scale for side in self._frame_size[:2])
        x, y = track.middle
        return (x + 0.5 - columns / 2) * direction[0] + (y + 0.5 - rows / 2) * direction[1]

    def _decided(self, track: Track, frame: Frame) -> PassingPart | None:
        if track.is_decided:
            return None
        track.is_decided = True
        if self._are_reported(track.covers, track):
            return None
        measures = [self._measures(outline) for outline in track.seen_as]
        problem = self._problem(track, measures)
        middle = _median(measures or [self._measures(track.outline)])
        if self._sizes.is_mark(middle, self._in_view()) or track.as_piece > track.with_belt:
            return None
        if measures:
            self._sizes.add(middle)
        if problem is Problem.TOUCHING:
            self._decide_all_in_one(track)
        report = self._report(track, frame, problem)
        track.best = None  # its frame is the caller's now
        return report

    def _are_reported(self, covered: list[Track], track: Track) -> bool:
        """Whether what was seen in its place before is most of it, and gets reports of its own."""
        parts = [other for other in covered if self._tracks.is_certain(other)]
        if sum(other.outline.area for other in parts) >= _OFTEN * track.outline.area:
            return True
        for piece in parts:
            piece.is_decided = True
        return False

    def _in_view(self) -> list[Measures]:
        """What moves with the belt in this picture."""
        return [self._measures(track.outline) for track in self._tracks.followed if track.with_belt]

    def _problem(self, track: Track, measures: list[Measures]) -> Problem:
        if track.best is None or not measures:
            return Problem.CUT_OFF
        if track.is_in_other:
            is_one_of_parts = any(self._tracks.is_certain(other) for other in self._over(track))
            return Problem.TOUCHING if is_one_of_parts else Problem.UNCLEAR
        usual, part = self._sizes.usual(), _median(measures)
        if are_several(part, track.best.outline, usual) or track.in_pieces >= _OFTEN * len(track.seen_as):
            return Problem.TOUCHING
        areas = np.array([one.area_px for one in measures])
        is_unsteady = float(np.median(np.abs(areas - part.area_px))) > _UNSTEADY * part.area_px
        if is_unsteady or is_too_small(part, usual):
            return Problem.UNCLEAR
        return Problem.NONE

    def _over(self, track: Track) -> list[Track]:
        """In whose outlines it lies."""
        return [
            other
            for other in self._tracks.followed
            if other is not track and other.outline.sides.shared_area(track.sides) > _OFTEN * track.sides.area
        ]

    def _decide_all_in_one(self, track: Track) -> None:
        for whole in self._tracks.followed:
            if track in whole.covers:
                whole.is_decided = True
                for other in whole.covers:
                    other.is_decided = other.is_decided or other.is_in_other

    def _gone(self, track: Track, frame: Frame) -> PassingPart | None:
        """Something has left the picture, or vanished in it."""
        if not self._tracks.is_certain(track):
            return None
        if track.best is None and (track.in_other or not track.came):
            return None  # it was passing out of view from the first, as a whole or as a piece of one
        return self._decided(track, frame)

    def _intrusions(self, frame: Frame) -> list[PassingPart]:
        """One report when something that moves otherwise than the belt comes, until nothing has for a second."""
        in_view = self._in_view()
        foreign = [
            track
            for track in self._tracks.followed
            if track.is_foreign and track.has_moved and not self._sizes.is_mark(self._measures(track.outline), in_view)
        ]
        is_new = self._intrusion_ns is None or frame.captured_ns - self._intrusion_ns > _INTRUSION_ENDS_NS
        if foreign:
            self._intrusion_ns = frame.captured_ns
        fresh = [track for track in foreign if not track.is_decided]
        for track in fresh:
            track.is_decided = True
        return [self._report(fresh[0], frame, Problem.UNCLEAR)] if fresh and is_new else []

    def _absorb_scene(self) -> None:
        """What stands while the belt moves belongs to the scene."""
        standing = self._tracks.standing()
        if standing:
            rows, columns = (round(side / self._scale) for side in self._frame_size[:2])
            self._belt.absorb(mask_of([track.outline for track in standing], (rows, columns)))
            for track in standing:
                self._tracks.stops_following(track)

    def _measures(self, outline: Outline) -> Measures:
        return Measures(
            outline.area * self._scale**2, outline.size[0] / outline.size[1], outline.solidity, outline.strength
        )

    def _report(self, track: Track, frame: Frame, problem: Problem) -> PassingPart:
        view_frame, outline = (frame, track.outline) if track.best is None else (track.best.frame, track.best.outline)
        x, y = ((place + 0.5) * self._scale - 0.5 for place in outline.middle)
        long, short = outline.size
        return PassingPart(
            view_frame,
            (x, y),
            outline.angle_deg,
            (long * self._scale, short * self._scale),
            self._speed(track),
            problem,
            self._crop_px,
            self._is_turned,
        )

    def _speed(self, track: Track) -> float:
        direction: Vector = self._tracks.motion.direction or (1.0, 0.0)
        places = list(track.places)[-_SPEED_OVER:]
        if not places:
            return 0.0
        (first_ns, first), (last_ns, last) = places[0], places[-1]
        way = (last[0] - first[0]) * direction[0] + (last[1] - first[1]) * direction[1]
        return max(0.0, way * self._scale / ((last_ns - first_ns) / 1e9)) if last_ns > first_ns else 0.0


def _median(measures: list[Measures]) -> Measures:
    """Each measure's median over the pictures of a part."""
    table = np.array([(one.area_px, one.proportion, one.solidity, one.strength) for one in measures])
    area, proportion, solidity, strength = (float(value) for value in np.median(table, axis=0))
    return Measures(area, proportion, solidity, strength)
