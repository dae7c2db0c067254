"""What the belt looks like without parts, and what in a picture is unlike it.

    expected   the belt of each pixel, times the light of this picture (one factor for each colour)
    change     how far a pixel is from that: in brightness, in colour, and its brightness from its neighbours'
    spread     mean change of a pixel while no part is on it: grain that moves by, noise, rounding
    unlike     a change of more than six times the spread

Light alone (a shadow, a reflection of the lamp that fades) changes brightness, neither colour nor abruptly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.belt.first_sight import unlike, without_parts
from agent.belt.small_picture import Mask, Small, grey_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TIMES = 6.0  # 5 standard deviations of a normal distribution
_LEAST_CHANGE = 8.0  # grey levels: what compression and rounding leave
_LEAST_EDGE = 2.0
_DARKEST_SHADOW = 0.5
_SOFTEST_EDGE = 0.15  # of the change around it in each pixel: light fades over more than six
_SLOWEST = 1 / 50
_SPREAD_OVER_PX = 15
_SAME_PIECE = 0.5
_SATURATED = 250.0
_GAIN_STEP = 3


@dataclass(frozen=True, slots=True)
class Unlike:
    """What in a picture is unlike the empty belt.

    Attributes:
        changed: By a part, or by light.
        solid: By more than light can do; of a part at least its edges.
        strength: How much each pixel is changed, in grey levels.
    """

    changed: Mask
    solid: Mask
    strength: Small


class EmptyBelt:
    """Follows the empty belt, from the first picture on; one picture size.

    Order of calls: ``look`` at each picture, then ``take_in`` with what in it are parts.
    """

    def __init__(self, first: Small) -> None:
        bare = without_parts(first)
        parts, usual = unlike(first, bare)
        self._belt = np.where(parts[..., np.newaxis] > 0, bare, first).astype(np.float32)
        # Two pieces of belt differ by more than each from their mean.
        self._spread = np.full((*first.shape[:2], 3), max(1.4 * usual, 0.5), np.float32)
        self._spread[..., 2] *= 0.7
        self._outside = 255 - parts
        self._gain = np.ones(3, np.float32)
        self._pictures = 1
        self._picture = first
        self._change = np.zeros_like(first)
        self._thought_over: Small | None = None

    def look(self, picture: Small) -> Unlike:
        """What in the picture is unlike the belt."""
        self._picture = picture
        self._gain = self._light_of(picture)
        expected = self._belt * self._gain
        difference = picture - expected
        brightness, level = grey_of(difference), grey_of(expected)
        colour = difference - expected * (brightness / np.maximum(level, 1.0))[..., np.newaxis]
        blue, green, red = cv2.split(np.abs(colour))
        across, down = cv2.Sobel(brightness, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(
            brightness, cv2.CV_32F, 0, 1, scale=1 / 8
        )
        edge = cv2.magnitude(across, down)
        size = np.abs(brightness)
        self._change = cv2.merge([size, cv2.max(cv2.max(blue, green), red), edge])
        limit = np.maximum(
            _TIMES * cv2.blur(self._spread, (_SPREAD_OVER_PX, _SPREAD_OVER_PX)),
            np.array([_LEAST_CHANGE, _LEAST_CHANGE, _LEAST_EDGE], np.float32),
        )
        exceeded = self._change > limit
        around = cv2.dilate(size, np.ones((5, 5), np.uint8))
        is_edge = exceeded[..., 2] & (edge > _SOFTEST_EDGE * around)
        is_light = (brightness < 0) & (brightness > (_DARKEST_SHADOW - 1) * level) & ~exceeded[..., 1]
        changed = exceeded[..., 0] | exceeded[..., 1]
        strength = cv2.max(size, np.ascontiguousarray(self._change[..., 1]))
        return Unlike(_mask(changed | is_edge), _mask((changed & ~is_light) | is_edge), np.asarray(strength, np.float32))

    def take_in(self, parts: Mask) -> None:
        """Learn from the picture looked at last, except where parts are."""
        seen = cv2.bitwise_not(cv2.dilate(parts, np.ones((5, 5), np.uint8)))
        self._outside = seen
        if self._shows_the_same_piece(seen):
            return
        self._thought_over = self._picture
        self._pictures += 1
        share = max(1 / (self._pictures + 1), _SLOWEST)
        cv2.accumulateWeighted(self._picture / self._gain, self._belt, share, mask=seen)
        cv2.accumulateWeighted(self._change, self._spread, share, mask=seen)

    def absorb(self, scene: Mask) -> None:
        """What is here in the picture looked at last belongs to the scene."""
        self._belt[scene > 0] = (self._picture / self._gain)[scene > 0]

    def _shows_the_same_piece(self, seen: Mask) -> bool:
        """Whether the belt has not moved since it was learnt from: its grain would be taken for the whole belt."""
        if self._thought_over is None:
            return False
        here = seen[::_GAIN_STEP, ::_GAIN_STEP] > 0
        if not here.any():
            return True
        moved = np.abs(grey_of(self._picture[::_GAIN_STEP, ::_GAIN_STEP] - self._thought_over[::_GAIN_STEP, ::_GAIN_STEP]))
        return bool(moved[here].mean() < _SAME_PIECE * self._spread[::_GAIN_STEP, ::_GAIN_STEP, 0][here].mean())

    def _light_of(self, picture: Small) -> NDArray[np.float32]:
        """Factor of each colour between the belt and this picture, from what was belt in the last one."""
        now, then = (image[::_GAIN_STEP, ::_GAIN_STEP] for image in (picture, self._belt))
        usable = (self._outside[::_GAIN_STEP, ::_GAIN_STEP] > 0) & (now.max(2) < _SATURATED) & (then.min(2) > 1)
        if np.count_nonzero(usable) < 16:
            return self._gain
        return np.asarray(np.median(now[usable] / then[usable], axis=0), np.float32)


def _mask(where: NDArray[np.bool_]) -> Mask:
    return where.view(np.uint8) * np.uint8(255)
