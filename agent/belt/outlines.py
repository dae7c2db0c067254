"""What is seen on the belt in one picture: regions with their place, size and shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.belt.empty_belt import Unlike
    from agent.belt.small_picture import Mask

MOST_OUTLINES = 32
_LEAST_SHARE = 1e-3  # of the picture: eight pixels square; what is smaller shows a network nothing
_MOSTLY = 0.5
_FAINT = 0.2
_CLOSING = np.ones((3, 3), np.uint8)
_OPENING = np.ones((3, 3), np.uint8)


class Sides(NamedTuple):
    """An upright rectangle, in pixels of the small picture; right and bottom are outside."""

    left: float
    top: float
    right: float
    bottom: float

    def moved(self, by: tuple[float, float]) -> Sides:
        """The rectangle, shifted by (x, y)."""
        return Sides(self.left + by[0], self.top + by[1], self.right + by[0], self.bottom + by[1])

    def shared_area(self, other: Sides) -> float:
        """Area that two rectangles have in common."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Width times height."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A region that is unlike the belt, in pixels of the small picture.

    Attributes:
        contour: (points, 1, 2), int32.
        sides: The upright rectangle around it.
        is_cut: Which of these sides lie on the picture's edge: left, top, right, bottom.
        middle: (x, y) of its rotated rectangle.
        size: Long and short side of that rectangle.
        angle_deg: Direction of the long side, 0 <= a < 180, from the x axis towards the y axis.
        area: Pixels inside the contour, holes included.
        solidity: Share of its convex hull that it fills.
        strength: How much it is unlike the belt, in grey levels: what three quarters of its pixels do not exceed.
    """

    contour: NDArray[np.int32]
    sides: Sides
    is_cut: tuple[bool, bool, bool, bool]
    middle: tuple[float, float]
    size: tuple[float, float]
    angle_deg: float
    area: float
    solidity: float
    strength: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether it lies wholly in view."""
        return not any(self.is_cut)


def find_outlines(unlike: Unlike) -> list[Outline]:
    """The regions that more than light has changed, at most MOST_OUTLINES, the largest first."""
    rows, columns = unlike.solid.shape
    least = _LEAST_SHARE * rows * columns
    contours = sorted(_contours(_bodies(unlike, least)), key=cv2.contourArea, reverse=True)[:MOST_OUTLINES]
    found = [outline_of(contour, (rows, columns), _usual_strength(contour, unlike.strength)) for contour in contours]
    return [outline for outline in found if outline.area >= least]


def outline_of(contour: NDArray[np.int32], picture: tuple[int, int], strength: float) -> Outline:
    """Place, size and shape of a contour in a picture of (rows, columns)."""
    x, y, width, height = cv2.boundingRect(contour)
    middle, (first, second), angle = cv2.minAreaRect(contour)
    turned = angle if first >= second else angle + 90
    # Points are middles of pixels, so that half a pixel on each side is missing.
    hull = cv2.convexHull(contour)
    area = _pixels_in(contour)
    return Outline(
        contour,
        Sides(x, y, x + width, y + height),
        (x <= 1, y <= 1, x + width >= picture[1] - 1, y + height >= picture[0] - 1),
        (float(middle[0]), float(middle[1])),
        (max(first, second) + 1, min(first, second) + 1),
        turned % 180,
        area,
        min(1.0, area / _pixels_in(np.asarray(hull, np.int32))),
        strength,
    )


def _pixels_in(contour: NDArray[np.int32]) -> float:
    """Pixels inside a contour through middles of pixels, and on it."""
    return float(cv2.contourArea(contour)) + cv2.arcLength(contour, closed=True) / 2 + 1


def mask_of(outlines: list[Outline], picture: tuple[int, int]) -> Mask:
    """The pixels inside these outlines."""
    mask = np.zeros(picture, np.uint8)
    cv2.drawContours(mask, [outline.contour for outline in outlines], -1, 255, cv2.FILLED)
    return mask


def _bodies(unlike: Unlike, least: float) -> Mask:
    """Each region with its solid edges closed and filled; without shadows and faint marks that lie at it."""
    bodies, near = _filled(unlike.solid), np.asarray(cv2.dilate(unlike.solid, _CLOSING), np.uint8)
    for contour in _contours(unlike.changed):
        # The edge of a dark part may have gaps through which it isn't filled; a shadow has no such edge.
        if cv2.contourArea(contour) >= least and _share_of(contour, near) >= _MOSTLY:
            inside = np.zeros_like(bodies)
            cv2.drawContours(inside, [contour], -1, 255, cv2.FILLED)
            if cv2.countNonZero(inside & bodies) < _MOSTLY * cv2.countNonZero(inside):
                bodies |= inside
    limit = np.zeros_like(unlike.strength)
    for contour in _contours(bodies):
        if cv2.contourArea(contour) >= least:
            cv2.drawContours(limit, [contour], -1, _FAINT * _usual_strength(contour, unlike.strength), cv2.FILLED)
    bodies[unlike.strength <= limit] = 0
    return _filled(bodies)


def _filled(mask: Mask) -> Mask:
    """Gaps closed, holes filled, and without specks."""
    filled = np.zeros_like(mask)
    closed = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _CLOSING), np.uint8)
    cv2.drawContours(filled, _contours(closed), -1, 255, cv2.FILLED)
    return np.asarray(cv2.morphologyEx(filled, cv2.MORPH_OPEN, _OPENING), np.uint8)


def _usual_strength(contour: NDArray[np.int32], strength: NDArray[np.float32]) -> float:
    """What three quarters of its pixels do not exceed."""
    x, y, width, height = cv2.boundingRect(contour)
    inside = np.zeros((height, width), np.uint8)
    cv2.drawContours(inside, [contour - np.array([x, y], np.int32)], -1, 1, cv2.FILLED)
    values = strength[y : y + height, x : x + width][inside > 0]
    place = values.size * 3 // 4
    return float(np.partition(values, place)[place])


def _share_of(contour: NDArray[np.int32], mask: NDArray[np.uint8]) -> float:
    """Which share of its points lies in a mask."""
    points = contour[:, 0]
    return float(np.count_nonzero(mask[points[:, 1], points[:, 0]])) / len(points)


def _contours(mask: Mask) -> list[NDArray[np.int32]]:
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in found]
