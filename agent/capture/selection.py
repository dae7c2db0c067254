"""Which frames of a camera are worth a file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from agent.belt.part_camera import PartFrame
from agent.messages.records import ResultCode
from agent.trigger.stillness import Stillness, cells_of
from calibration.imaging.region import crop

if TYPE_CHECKING:
    from agent.camera import Frame
    from agent.trigger.stillness import Cells
    from calibration.imaging.preprocess import Image
    from calibration.imaging.region import Region


class Selection(Protocol):
    """Called with each frame once, in order."""

    def __call__(self, frame: Frame) -> bool:
        """Whether to keep this frame."""


class AtIntervals:
    """A frame every so often, the first one at once.

    Args:
        interval_s: Least time between two; 0 keeps every frame.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_ns = round(interval_s * 1e9)
        self._next_ns = 0

    def __call__(self, frame: Frame) -> bool:
        """See Selection."""
        if frame.captured_ns < self._next_ns:
            return False
        self._next_ns = frame.captured_ns + self._interval_ns
        return True


class OnRequest:
    """Selects the next frame after each request, as a trigger of the line does."""

    def __init__(self) -> None:
        self._asked_ns: int | None = None

    def ask(self) -> None:
        """Select the next frame that is captured from now on."""
        self._asked_ns = time.monotonic_ns()

    def __call__(self, frame: Frame) -> bool:
        """See Selection."""
        if self._asked_ns is None or frame.captured_ns < self._asked_ns:
            return False
        self._asked_ns = None
        return True


class Fit:
    """Each part that passes on a belt and can be inspected."""

    def __call__(self, frame: Frame) -> bool:
        """See Selection."""
        return isinstance(frame, PartFrame) and frame.code is ResultCode.NONE


class Settled:
    """One frame of each part that comes and stands still, as with ``trigger.source: motion``.

    Args:
        settled_ms: How long it must stand still.
        region: What is watched; None: the whole frame.
        empty: Image of the place without a part, which is not kept; None: there is always a part.
    """

    def __init__(self, settled_ms: float, region: Region | None = None, empty: Image | None = None) -> None:
        self._settled_ns = round(settled_ms * 1e6)
        self._region = region
        self._empty = empty
        self._stillness = Stillness()

    def __call__(self, frame: Frame) -> bool:
        """See Selection.

        Raises:
            DatasetError: The region reaches outside the frame.
        """
        is_still = self._stillness.update(self._cells(frame.image), frame.captured_ns)
        if not (is_still and self._stillness.has_moved and self._stillness.since_ns is not None):
            return False
        if frame.captured_ns - self._stillness.since_ns < self._settled_ns:
            return False
        self._stillness.settle()
        return self._empty is None or not self._stillness.resembles(self._cells(self._empty))

    def _cells(self, image: Image) -> Cells:
        return cells_of(image if self._region is None else crop(image, self._region))
