"""What the belt looks like without parts, and what in a picture is unlike it.

    expected   the belt of each pixel, times the light of this picture (one factor for each colour)
    change     how far a pixel is from that: in brightness, in colour, and its brightness from its neighbours'
    spread     the change that a pixel exceeds in a quarter of the pictures: grain that moves by, noise, rounding. Parts
               that are not recognised as such do not raise it while they cover less of the time
    unlike     a change of more than 3.5 times the spread

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

_TIMES = 3.5  # 4 standard deviations of a normal distribution; single pixels are no outline
_LEAST = np.array([8.0, 8.0, 2.0], np.float32)  # grey levels (per pixel for edges): compression and rounding
_QUARTER_OF_HALF = 1.7  # of a normal distribution: what a quarter of the values exceed, by what half of them do
_TWO_PIECES = 1.4
_LEAST_SPREAD = 0.5
_LEAST_EDGE_SHARE = 0.5
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
        usual = np.median(self._change.reshape(-1, 3), axis=0) * _QUARTER_OF_HALF
        unlike_bare = np.asarray(np.abs(first - self._belt).max(axis=2), np.float32)
        usual[:2] = _QUARTER_OF_HALF * np.median(unlike_bare)
        usual[2] = max(usual[2], _LEAST_EDGE_SHARE * usual[0])
        self._spread = np.empty_like(first)
        self._spread[:] = np.maximum(_TWO_PIECES * usual, _LEAST_SPREAD)
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
        seen = np.asarray(cv2.bitwise_not(cv2.dilate(parts, np.ones((5, 5), np.uint8))), np.uint8)
        self._outside = seen
        if self._shows_the_same_piece(seen):
            return
        self._thought_over = self._picture
        self._pictures += 1
        share = max(1 / (self._pictures + 1), _SLOWEST)
        cv2.accumulateWeighted(self._picture / self._gain, self._belt, share, mask=seen)
        exceeds = self._change > self._spread
        grown = self._spread * np.where(exceeds, np.float32(1 + 1.5 * share), np.float32(1 - 0.5 * share))
        np.copyto(self._spread, np.maximum(grown, _LEAST_SPREAD), where=seen[..., np.newaxis] > 0)

    def absorb(self, scene: Mask) -> None:
        """What is here in the picture looked at last belongs to the scene."""
        self._belt[scene > 0] = (self._picture / self._gain)[scene > 0]

    def _shows_the_same_piece(self, seen: Mask) -> bool:
        """Whether the belt has not moved since the last one taken in: its grain would be taken for the whole belt."""
        if self._thought_over is None:
            return False
        here = seen[::_GAIN_STEP, ::_GAIN_STEP] > 0
        if not here.any():
            return True
        moved = np.abs(
            grey_of(self._picture[::_GAIN_STEP, ::_GAIN_STEP] - self._thought_over[::_GAIN_STEP, ::_GAIN_STEP])
        )
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
    """Change of brightness, of colour, and at edges, (rows, columns, 3), all positive; brightness also signed."""
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
    return np.asarray(where.view(np.uint8) * np.uint8(255), np.uint8)
