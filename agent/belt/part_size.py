"""How large parts are, and whether an outline is one part or several."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.belt.outlines import Outline

_REMEMBERED = 64
_LEAST_SEEN = 4
_SIMILAR = 0.15
_USUAL = 0.15
_USUAL_OF_OTHER_SHAPE = 0.4
_MOST_ARE_USUAL = 0.7
_CLEARLY_LARGER = 1.35
_CLEARLY_SMALLER = 0.35
_OTHER_SOLIDITY = 0.05
_OTHER_PROPORTION = 0.25
_NECK = 0.6
_LOBE = 0.7
_CONVEX = 0.92
_CRUMB = 1 / 16
_FAINT = 0.2


@dataclass(frozen=True, slots=True)
class PartSize:
    """The sizes of the usual parts; areas in pixels of the frame.

    Attributes:
        least_area_px, most_area_px: Smallest and largest of them, holes included.
        proportion: Long over short side of the rotated rectangle; median.
        solidity: Share of its convex hull that a part fills; median.
        strength: How much a part is unlike the belt, in grey levels; median.
    """

    least_area_px: float
    most_area_px: float
    proportion: float
    solidity: float
    strength: float


@dataclass(frozen=True, slots=True)
class Measures:
    """One part: its area in pixels of the frame, its shape, and how much it is unlike the belt, in grey levels."""

    area_px: float
    proportion: float
    solidity: float
    strength: float


class PartSizes:
    """The sizes of the last parts.

    Args:
        typical: What was seen while teaching; it holds until as many parts have passed as are remembered. None: sizes
            are not known at first.
    """

    def __init__(self, typical: PartSize | None = None) -> None:
        self._typical = typical
        self._seen: deque[Measures] = deque(maxlen=_REMEMBERED)

    def add(self, part: Measures) -> None:
        """A part was seen."""
        self._seen.append(part)

    def is_mark(self, one: Measures, in_view: Sequence[Measures]) -> bool:
        """Whether it is no part but a crumb, or a mark on the belt or its reflection: much smaller and fainter.

        Args:
            one: What is asked about.
            in_view: Other things that move with the belt; they count until sizes are known.
        """
        parts: list[Measures] = list(self._seen)
        if self._typical is not None:
            usual = self._typical
            parts.append(Measures(usual.most_area_px, usual.proportion, usual.solidity, usual.strength))
        if len(parts) < _LEAST_SEEN:
            parts += sorted(in_view, key=lambda part: part.area_px * part.strength)[-1:]
        if not parts:
            return False
        much = float(np.percentile([part.area_px * part.strength for part in parts], 75, method="higher"))
        strength = float(np.median([part.strength for part in parts]))
        return one.area_px * one.strength < _CRUMB * much or one.strength < _FAINT * strength

    def usual(self) -> PartSize | None:
        """The sizes that many parts have; None while they are not known, or if each part has its own."""
        if self._typical is not None and len(self._seen) < _REMEMBERED:
            return self._typical
        if len(self._seen) < _LEAST_SEEN:
            return None
        areas = np.log([part.area_px for part in self._seen])
        similar = np.abs(areas[:, None] - areas[None]) < _SIMILAR
        solidity = np.array([part.solidity for part in self._seen])
        is_shaped_so = np.abs(solidity - np.median(solidity)) < _OTHER_SOLIDITY
        is_usual = similar.mean(1) >= np.maximum(np.where(is_shaped_so, _USUAL, _USUAL_OF_OTHER_SHAPE), 2 / len(areas))
        if is_usual.mean() < _MOST_ARE_USUAL:
            return None
        usual = [part for part, counts in zip(self._seen, is_usual, strict=True) if counts]
        sizes = [part.area_px for part in usual]
        return PartSize(
            min(sizes),
            max(sizes),
            float(np.median([part.proportion for part in usual])),
            float(np.median([part.solidity for part in usual])),
            float(np.median([part.strength for part in usual])),
        )


def are_several(part: Measures, outline: Outline, usual: PartSize | None) -> bool:
    """Whether an outline is of parts that touch.

    Where sizes are known, one that is clearly larger is, unless it has the shape of the others. Where they are not, as
    each part has its own, one with a neck between two bodies is.
    """
    if usual is None:
        return _has_neck(outline)
    if part.area_px <= _CLEARLY_LARGER * usual.most_area_px:
        return False
    is_shaped_so = (
        abs(part.solidity - usual.solidity) < _OTHER_SOLIDITY
        and abs(np.log(part.proportion / usual.proportion)) < _OTHER_PROPORTION
    )
    return not is_shaped_so


def is_too_small(part: Measures, usual: PartSize | None) -> bool:
    """Whether it is much smaller than any of the others."""
    return usual is not None and part.area_px < _CLEARLY_SMALLER * usual.least_area_px


def _has_neck(outline: Outline) -> bool:
    """Whether two bodies of about the same width are joined by something much narrower."""
    if outline.solidity >= _CONVEX:
        return False
    left, top, right, bottom = (int(side) for side in outline.sides)
    mask = np.zeros((bottom - top + 2, right - left + 2), np.uint8)
    cv2.drawContours(mask, [outline.contour - np.array([left - 1, top - 1], np.int32)], -1, 255, cv2.FILLED)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    deepest = float(depth.max())
    count, labels = cv2.connectedComponents((depth > _NECK * deepest).astype(np.uint8))
    depths = sorted((float(depth[labels == label].max()) for label in range(1, count)), reverse=True)
    return len(depths) > 1 and depths[1] >= _LOBE * deepest
