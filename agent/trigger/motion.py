"""A part comes, settles, is looked at once, and goes.

waiting -- something moves --> moving -- still for settled_ms --> a part, or an empty place --> waiting
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING

from agent.trigger.part import Part
from agent.trigger.stillness import Stillness, cells_of
from calibration.errors import DatasetError
from calibration.imaging.region import bounding_region, crop, whole_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.camera import Frame
    from agent.trigger.plc_handshake import Handshake
    from agent.zones.recipe import Recipe
    from calibration.imaging.preprocess import Image

log = logging.getLogger(__name__)


class OnMotion:
    """What has moved and now stands still is a part, unless the place is empty.

    Nothing is a part before something has moved. What moves on for too long is a part without a verdict: the controller
    and the records are told, once until it stands still. A frozen camera sees no motion, and one of another resolution
    not the region; both are looked at, so that somebody hears of it.

    Args:
        handshake: Expects each part from the moment it has settled.
        recipes: Have the regions of interest, and know the empty place. What lies between several is looked at, too.
        settled_ms: So long it must stand still.
        unsettled_ms: So long something may move.
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
        self._moves_since_ns: int | None = None
        self._seen_ns = 0
        self._told_frozen = self._told_unsettled = False
        self._lock = threading.Lock()
        self._unseen: list[Part] = []

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """See Trigger; those that never settled."""
        with self._lock:
            without = [part for part in parts if part in self._unseen]
            self._unseen = [part for part in self._unseen if part not in without]
            return without

    def __call__(self, frame: Frame, in_hand: Part | None = None) -> Part | None:
        """See Trigger."""
        recipes = self._recipes()
        try:
            inspected = _inspected(frame, recipes)
        except DatasetError:
            return in_hand or self._part(frame)  # which it is not, and `look` says why
        is_still = self._stillness.goes_on(cells_of(inspected), frame.captured_ns)
        if in_hand is not None and not self._stillness.has_moved:
            return in_hand
        self._note_motion(frame)
        if self._has_settled(frame, is_still=is_still):
            return self._settled(frame, recipes)
        if self._freezes(recipes):
            return self._part(frame)
        self._pass_over(frame)
        return None

    def _note_motion(self, frame: Frame) -> None:
        """Since when something moves; not through a pause, say, or while the camera was lost."""
        unseen_ns, self._seen_ns = frame.captured_ns - self._seen_ns, frame.captured_ns
        if self._stillness.has_moved and (self._moves_since_ns is None or unseen_ns >= self._unsettled_ns):
            self._moves_since_ns = frame.captured_ns

    def _has_settled(self, frame: Frame, *, is_still: bool) -> bool:
        since_ns = self._stillness.since_ns
        if self._moves_since_ns is None or since_ns is None or not is_still:
            return False
        return frame.captured_ns - since_ns >= self._settled_ns

    def _settled(self, frame: Frame, recipes: Sequence[Recipe]) -> Part | None:
        self._moves_since_ns = None
        self._stillness.settle()
        if self._told_unsettled:
            self._told_unsettled = False
            log.info("what is before the camera stands still again")
        if all(recipe.empty_place is not None and recipe.empty_place(frame.image) for recipe in recipes):
            self.dropped["empty"] += 1
            return None
        return self._part(frame)

    def _freezes(self, recipes: Sequence[Recipe]) -> bool:
        """Whether the camera is frozen since the frame before."""
        is_frozen = any(recipe.checks is not None and recipe.checks.is_frozen for recipe in recipes)
        was_told, self._told_frozen = self._told_frozen, is_frozen
        return is_frozen and not was_told

    def _pass_over(self, frame: Frame) -> None:
        if self._moves_since_ns is None:
            self.dropped["untriggered"] += 1
            return
        moves_ns = frame.captured_ns - self._moves_since_ns
        if moves_ns >= self._unsettled_ns and not self._told_unsettled:
            self._told_unsettled = True
            log.warning(
                "what is before the camera has not stood still for %.1f s; it gets no verdict until it does",
                moves_ns / 1e9,
            )
            with self._lock:  # so that nobody gives it up before it is among the unseen
                self._unseen.append(self._part(frame))
        self.dropped["unsettled" if self._told_unsettled else "moving"] += 1

    def _part(self, frame: Frame) -> Part:
        part = Part(None, frame.captured_at_ms, frame.captured_ns)
        self._handshake.expect(part)
        return part


def _inspected(frame: Frame, recipes: Sequence[Recipe]) -> Image:
    """What all zones lie in.

    Raises:
        DatasetError: One of them reaches outside the frame.
    """
    for recipe in recipes:
        recipe.preprocess.region_of_interest(frame.image)
    return crop(
        frame.image, bounding_region([recipe.preprocess.region or whole_frame(frame.image) for recipe in recipes])
    )
