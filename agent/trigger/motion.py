"""A trigger without the line: a part comes, settles, is inspected once, and goes.

waiting -- something moves --> moving -- still for settled_ms --> a part, or the empty place --> waiting
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING

from agent.trigger.part import Part
from agent.trigger.stillness import Stillness, cells_of
from calibration.errors import DatasetError
from calibration.imaging.region import bounding_region, crop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.camera import Frame
    from agent.trigger.plc_handshake import Handshake
    from agent.zones.recipe import Recipe
    from calibration.imaging.preprocess import Image

log = logging.getLogger(__name__)


class OnMotion:
    """What has moved and now stands still is a part, unless the place is empty.

    Nothing is a part before something has moved. What moves for too long is a part without a verdict, reported to the
    controller and in a record, once until it stands still. A frozen camera sees no motion, and a camera of another
    resolution not the region; such frames count as parts, so that the fault is reported.

    Args:
        handshake: Expects each part from the moment it has settled.
        recipes: Their regions of interest are watched, with what lies between them; they know the empty place.
        settled_ms: How long a part must stand still.
        unsettled_ms: How long something may move.
    """

    def __init__(
        self, handshake: Handshake, recipes: Callable[[], Sequence[Recipe]], settled_ms: float, unsettled_ms: float
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._handshake = handshake
        self._recipes = recipes
        self._settled_ns = round(settled_ms * 1e6)
        self._unsettled_ns = round(unsettled_ms * 1e6)
        self._stillness = Stillness()
        self._moving_since_ns: int | None = None
        self._last_frame_ns = 0
        self._was_frozen = self._is_unsettled = False
        self._lock = threading.Lock()
        self._without_frame: list[Part] = []

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """See Trigger; these are the parts that never settled."""
        with self._lock:
            without = [part for part in parts if part in self._without_frame]
            self._without_frame = [part for part in self._without_frame if part not in without]
            return without

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        """See Trigger."""
        if frame.is_damaged:  # it does not show whether something moves
            if current is None:
                self.dropped["unreadable"] += 1
            return current
        recipes = self._recipes()
        try:
            inspected = _inspected(frame, recipes)
        except DatasetError:
            return current or self._part(frame)  # it is not one, and `score_frame` reports why
        is_still = self._stillness.update(cells_of(inspected), frame.captured_ns)
        if current is not None and not self._stillness.has_moved:
            return current
        self._note_motion(frame)
        if is_still and self._has_settled(frame):
            return self._settled(frame, recipes)
        if self._freezes(recipes):
            return self._part(frame)
        self._pass_over(frame)
        return None

    def _note_motion(self, frame: Frame) -> None:
        """Note when motion starts; a gap in the frames, such as a pause or a lost camera, is not motion."""
        gap_ns, self._last_frame_ns = frame.captured_ns - self._last_frame_ns, frame.captured_ns
        if self._stillness.has_moved and (self._moving_since_ns is None or gap_ns >= self._unsettled_ns):
            self._moving_since_ns = frame.captured_ns

    def _has_settled(self, frame: Frame) -> bool:
        since_ns = self._stillness.since_ns
        if self._moving_since_ns is None or since_ns is None:
            return False
        return frame.captured_ns - since_ns >= self._settled_ns

    def _settled(self, frame: Frame, recipes: Sequence[Recipe]) -> Part | None:
        self._moving_since_ns = None
        self._stillness.settle()
        if self._is_unsettled:
            self._is_unsettled = False
            log.info("what is before the camera stands still again")
        if all(recipe.empty_place is not None and recipe.empty_place(frame.image) for recipe in recipes):
            self.dropped["empty"] += 1
            return None
        return self._part(frame)

    def _freezes(self, recipes: Sequence[Recipe]) -> bool:
        """Whether the camera has frozen with this frame."""
        is_frozen = any(recipe.checks is not None and recipe.checks.is_frozen for recipe in recipes)
        was_frozen, self._was_frozen = self._was_frozen, is_frozen
        return is_frozen and not was_frozen

    def _pass_over(self, frame: Frame) -> None:
        if self._moving_since_ns is None:
            self.dropped["untriggered"] += 1
            return
        moving_ns = frame.captured_ns - self._moving_since_ns
        if moving_ns >= self._unsettled_ns and not self._is_unsettled:
            self._is_unsettled = True
            log.warning(
                "what is before the camera has not stood still for %.1f s; it gets no verdict until it does",
                moving_ns / 1e9,
            )
            with self._lock:  # the part must be in the list before another thread can withdraw it
                self._without_frame.append(self._part(frame))
        self.dropped["unsettled" if self._is_unsettled else "moving"] += 1

    def _part(self, frame: Frame) -> Part:
        return self._handshake.expect(Part(None, frame.captured_at_ms, frame.captured_ns))


def _inspected(frame: Frame, recipes: Sequence[Recipe]) -> Image:
    """The rectangle around the regions of all zones.

    Raises:
        DatasetError: One of them reaches outside the frame.
    """
    for recipe in recipes:
        recipe.preprocess.region_of_interest(frame.image)
    return crop(frame.image, bounding_region([recipe.preprocess.area(frame.image) for recipe in recipes]))
