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

from agent.belt.first_sight import likely_parts, without_parts
from agent.belt.small_picture import Mask, Small, grey_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TIMES = 6.0  # 5 standard deviations of a normal distribution
_LEAST = np.array([8.0, 8.0, 2.0], np.float32)  # grey levels (per pixel for edges): compression and rounding
_MEAN_OF_MEDIAN = 1.2  # of a normal distribution's absolute values
_TWO_PIECES = 1.4
_DARKEST_SHADOW = 0.5
_SOFTEST_EDGE = 0.15  # of the change around it in each pixel: light fades over more than six
_SLOWEST = 1 / 50
_SPREAD_OVER_PX = 15
_SAME_PIECE = 0.5
_SATURATED = 250.0
_BLACK = 2.0
_FEW = 16
_GAIN_STEP = 4


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
        self._belt = without_parts(first)
        self._gain = np.ones(3, np.float32)
        self._pictures = 1
        self._picture = first
        self._change = _change(first, self._belt)[0]
        self._thought_over: Small | None = None
        # Half of the picture at least is belt; and two pieces of belt differ by more than each from their mean.
        usual = np.median(self._change.reshape(-1, 3), axis=0) * _MEAN_OF_MEDIAN
        unlike_bare = np.abs(first - self._belt).max(axis=2)
        usual[:2] = _MEAN_OF_MEDIAN * np.median(unlike_bare)
        usual[2] = max(usual[2], 0.5 * usual[0])
        self._spread = np.empty_like(first)
        self._spread[:] = np.maximum(_TWO_PIECES * usual, 0.5)
        parts = likely_parts(unlike_bare, float(usual[0]))
        self._belt = np.where(parts[..., np.newaxis] > 0, self._belt, first).astype(np.float32)
        self._outside = 255 - parts

    def look(self, picture: Small) -> Unlike:
        """What in the picture is unlike the belt."""
        self._picture = picture
        self._gain = self._light_of(picture)
        expected = self._belt * self._gain
        self._change, brightness = _change(picture, expected)
        limit = np.maximum(_TIMES * cv2.blur(self._spread, (_SPREAD_OVER_PX, _SPREAD_OVER_PX)), _LEAST)
        exceeded = cv2.split((self._change > limit).view(np.uint8))
        size, colour, edge = cv2.split(self._change)
        around = cv2.dilate(size, np.ones((5, 5), np.uint8))
        is_edge = (exceeded[2] > 0) & (edge > _SOFTEST_EDGE * around)
        darkest = (_DARKEST_SHADOW - 1) * grey_of(expected)
        is_light = (brightness < 0) & (brightness > darkest) & (exceeded[1] == 0)
        changed = (exceeded[0] | exceeded[1]) > 0
        return Unlike(
            _mask(changed | is_edge),
            _mask((changed & ~is_light) | is_edge),
            np.asarray(cv2.max(size, colour), np.float32),
        )

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
        here = self._outside[::_GAIN_STEP, ::_GAIN_STEP] > 0
        now, then = (image[::_GAIN_STEP, ::_GAIN_STEP][here] for image in (picture, self._belt))
        usable = (grey_of(now[None])[0] < _SATURATED) & (grey_of(then[None])[0] > _BLACK)
        if np.count_nonzero(usable) < _FEW:
            return self._gain
        ratios = now[usable] / np.maximum(then[usable], 1.0)
        return np.asarray(np.median(ratios, axis=0), np.float32)


def _change(picture: Small, expected: Small) -> tuple[Small, Small]:
    """Change of brightness, of colour, and at edges, (rows, columns, 3), all positive; and that of brightness signed."""
    difference = picture - expected
    brightness = grey_of(difference)
    share = brightness / np.maximum(grey_of(expected), 1.0)
    colour = np.abs(difference - expected * share[..., np.newaxis])
    blue, green, red = cv2.split(colour)
    across = cv2.Sobel(brightness, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(brightness, cv2.CV_32F, 0, 1, scale=1 / 8)
    merged = cv2.merge([np.abs(brightness), cv2.max(cv2.max(blue, green), red), cv2.magnitude(across, down)])
    return np.asarray(merged, np.float32), brightness


def _mask(where: NDArray[np.bool_]) -> Mask:
    return where.view(np.uint8) * np.uint8(255)
