"""Figures that help to aim, focus and expose a camera."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import cv2

from calibration.camera_checks import frame_statistics
from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from agent.messages.records import Payload
    from calibration.imaging.preprocess import Image

_WHITE, _BLACK = 250, 5
_TOO_MUCH = 0.02
_MUCH_WORSE = 0.5
_LAST = 10  # figures, three a second


class Focus:
    """Sharpness relative to the best since the camera was opened, and exposure.

    The sharpest of the last frames counts: while parts pass, there are frames with nothing to be sharp.
    """

    def __init__(self) -> None:
        self._best = 0.0
        self._last: deque[float] = deque(maxlen=_LAST)

    def figures(self, image: Image) -> Payload:
        """The figures of a frame, or of the inspected part of it, with what to do about them."""
        grey = to_grey(image)
        self._last.append(math.exp(frame_statistics.detail(grey)))
        self._best = max(self._best, self._last[-1])
        white = cv2.countNonZero(cv2.inRange(grey, _WHITE, 255)) / grey.size
        black = cv2.countNonZero(cv2.inRange(grey, 0, _BLACK)) / grey.size
        focus = max(self._last) / self._best
        advice = [
            "less sharp than before: focus again, wipe the lens, or hold the part still" if focus < _MUCH_WORSE else "",
            "white areas without detail: less exposure or light" if white > _TOO_MUCH else "",
            "black areas without detail: more exposure or light" if black > _TOO_MUCH else "",
        ]
        return {
            "focus": round(focus, 3),
            "mean": round(cv2.mean(grey)[0], 1),
            "white": round(white, 4),
            "black": round(black, 4),
            "advice": [each for each in advice if each],
        }
