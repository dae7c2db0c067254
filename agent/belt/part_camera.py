"""A camera above a moving belt, as a camera whose frames are parts."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.belt.passing_part import Problem
from agent.camera import Frame
from agent.camera.file_camera import FileCamera
from agent.messages.records import ResultCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from agent.belt.passing_part import PassingPart
    from agent.belt.passing_parts import PassingParts
    from agent.camera import CameraState, StationCamera

_MEASURED_PARTS = 10
_MARGIN = 1.2
"""Times the longest side of a part: its edge and a little of the belt are in its image."""
_STEP_PX = 8
_CODES = {
    Problem.NONE: ResultCode.NONE,
    Problem.TOUCHING: ResultCode.TOUCHING,
    Problem.CUT_OFF: ResultCode.CUT_OFF,
    Problem.UNCLEAR: ResultCode.UNCLEAR,
}


@dataclass(frozen=True, slots=True)
class PartFrame(Frame):
    """The image of a part that passes.

    Attributes:
        speed_px_s: Of the part, along the belt, pixels of the camera's frame a second.
        code: Why the part cannot be inspected; ``NONE`` if it can.
    """

    speed_px_s: float = 0.0
    code: ResultCode = ResultCode.NONE


class PartCamera:
    """See Camera. Hands out one `PartFrame` for each part that passes, in the order of the belt, and None in between.

    Its ``captured`` counts frames and parts: a frame of the belt is dropped as ``untriggered`` once it was searched.

    Args:
        camera: Looks at the belt.
        passing: Finds the parts.
        crop_px: Width and height of the image of a part; None: measured at the first parts, which are held back until
            there are ten, or the frames end.
    """

    def __init__(self, camera: StationCamera, passing: PassingParts, crop_px: tuple[int, int] | None) -> None:
        self.show: Callable[[Frame], object] = lambda _: None
        self.crop_px = crop_px
        self._camera = camera
        self._passing = passing
        self._numbers = itertools.count()
        self._searched = self._parts = 0
        self._held: list[PassingPart] = []

    @property
    def captured(self) -> int:
        """See Camera."""
        return self._camera.captured + self._parts

    @property
    def dropped(self) -> dict[str, int]:
        """See Camera."""
        return {**self._camera.dropped, "untriggered": self._searched}

    @property
    def state(self) -> CameraState:
        """See Camera."""
        return self._camera.state

    @property
    def reason(self) -> str:
        """See Camera."""
        return self._camera.reason

    @property
    def refused_settings(self) -> Sequence[str]:
        """See Camera."""
        return self._camera.refused_settings

    def __enter__(self) -> Self:
        """See Camera."""
        self._camera.__enter__()
        return self

    def __iter__(self) -> Iterator[PartFrame | None]:
        """See Camera."""
        for taken in self._camera:
            frame = self._at_its_time(taken)
            if frame is None:
                if self._camera.state != "running":
                    self._passing.reset()
                yield None
                continue
            parts = self._passing(frame)
            self._searched += 1
            next(self._numbers)
            self.show(frame)
            yield from self._images(parts)
            yield None
        yield from self._images([], is_end=True)

    def trigger(self) -> None:
        """See Camera."""
        self._camera.trigger()

    def stop(self) -> None:
        """See Camera."""
        self._camera.stop()

    def __exit__(self, *exception: object) -> None:
        """See Camera."""
        self._camera.__exit__(*exception)

    def _at_its_time(self, frame: Frame | None) -> Frame | None:
        """Frames of a file that is read as fast as possible have the time at which they were recorded."""
        if frame is None or not isinstance(self._camera, FileCamera):
            return frame
        return replace(frame, captured_ns=round(frame.seq * 1e9 / self._camera.frames_per_s))

    def _images(self, parts: Sequence[PassingPart], *, is_end: bool = False) -> Iterator[PartFrame]:
        if self.crop_px is None:
            self._held += [part for part in parts if part.problem is Problem.NONE]
            if not self._held or (len(self._held) < _MEASURED_PARTS and not is_end):
                return
            parts, self._held = self._held, []
            self.crop_px = crop_around(parts)
        for part in parts:
            self._parts += 1
            yield self._image(replace(part, crop_px=self.crop_px))

    def _image(self, part: PassingPart) -> PartFrame:
        taken = part.frame
        return PartFrame(
            next(self._numbers),
            part.image(),
            taken.captured_at_ms,
            time.monotonic_ns() if isinstance(self._camera, FileCamera) else taken.captured_ns,
            stamp=taken.stamp,
            speed_px_s=round(part.speed_px_s, 1),
            code=_CODES[part.problem],
        )


def crop_around(parts: Sequence[PassingPart]) -> tuple[int, int]:
    """Width and height, pixels, of an image in which each of these parts has room, whichever way it lies."""
    long_px = _rounded(max(part.size_px[0] for part in parts))
    if not parts[0].is_turned:
        return long_px, long_px
    return _rounded(max(part.size_px[1] for part in parts)), long_px


def _rounded(side_px: float) -> int:
    return _STEP_PX * math.ceil(_MARGIN * side_px / _STEP_PX)
