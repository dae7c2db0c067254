"""A part that has passed, and its image."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from agent.camera import Frame
    from calibration.imaging.preprocess import Image


class Problem(enum.Enum):
    """Why a part cannot be inspected; NONE if it can."""

    NONE = "none"
    TOUCHING = "touching"
    """Two or more parts that touch or overlap; one report for all of them."""
    CUT_OFF = "cut off"
    """It was never wholly in view."""
    UNCLEAR = "unclear"
    """No part as the others: a hand, something over a part, one that changes its shape, a crumb, one taken away."""


@dataclass(frozen=True, slots=True)
class PassingPart:
    """One part, or one group of parts that touch; lengths in pixels of the frame.

    Attributes:
        frame: Its best view: nearest to the middle of the picture along the belt, among those as sharp. Its time lets a
            gate further on count: (distance to the gate) / ``speed_px_s`` later the part is there.
        middle: (x, y) of its rotated rectangle.
        angle_deg: Direction of its long side, 0 <= a < 180, from the x axis towards the y axis.
        size_px: Long and short side of the rectangle.
        speed_px_s: Along the belt.
        problem: Why it cannot be inspected.
        crop_px: Width and height of `image`; None: as large as the part.
        is_turned: Whether `image` shows its long side upright.
    """

    frame: Frame
    middle: tuple[float, float]
    angle_deg: float
    size_px: tuple[float, float]
    speed_px_s: float
    problem: Problem
    crop_px: tuple[int, int] | None = None
    is_turned: bool = False

    def image(self) -> Image:
        """The part in the middle of its image, (rows, columns, 3), uint8.

        Outside of the frame its edge is continued. Turned upright, a part may stand on its head: its two ends are not
        distinguished.
        """
        width, height = self.crop_px or self._own_size()
        if not self.is_turned:
            left, top = round(self.middle[0] - (width - 1) / 2), round(self.middle[1] - (height - 1) / 2)
            rows, columns = self.frame.image.shape[:2]
            y = np.clip(np.arange(top, top + height), 0, rows - 1)
            x = np.clip(np.arange(left, left + width), 0, columns - 1)
            return np.ascontiguousarray(self.frame.image[y[:, None], x])
        turn = cv2.getRotationMatrix2D(self.middle, self.angle_deg - 90, 1)
        turn[:, 2] += np.array([(width - 1) / 2 - self.middle[0], (height - 1) / 2 - self.middle[1]])
        turned = cv2.warpAffine(
            self.frame.image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(turned, np.uint8)

    def _own_size(self) -> tuple[int, int]:
        long, short = self.size_px
        if self.is_turned:
            return max(1, round(short)), max(1, round(long))
        turn = np.deg2rad(self.angle_deg)
        cosine, sine = abs(np.cos(turn)), abs(np.sin(turn))
        return max(1, round(long * cosine + short * sine)), max(1, round(long * sine + short * cosine))
