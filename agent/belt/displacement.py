"""How far the belt has moved from one picture to the next: as most of what lies on it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.belt.outlines import Sides

Vector: TypeAlias = tuple[float, float]
"""(x, y), in pixels of the small picture."""

_LEAST_TOLERANCE_PX = 3.0
_OF_SIZE = 0.15
_OF_WAY = 0.25
_SAME_SIZE = 0.25
_AS_BEFORE = 1.2  # a little more than one more thing that coincides: one leaves the picture while one comes
_UNEXPLAINED = 0.5  # a thing may also vanish in a shadow, or under a hand
_ASKEW = 0.3  # cameras are mounted along a belt, or across
_FAR = 1e3
_MOST_VOTES = 200


class Placed(Protocol):
    """What has a place in the picture."""

    @property
    def sides(self) -> Sides:
        """Around it."""

    @property
    def is_cut(self) -> tuple[bool, bool, bool, bool]:
        """Which of them lie on the picture's edge."""


class Steps:
    """The step from each of the outlines of one picture to each of the next.

    Of an outline that the picture's edge cuts, only the free sides move with it. Where it is cut on one axis, the
    other one changes with its shape, so that it need only overlap there.

    Attributes:
        step: (before, now, 2), from each to each.
        slack: The same shape: how far each may be from the belt's displacement, in pixels.
        is_like: (before, now): whether both can be the same thing.
    """

    def __init__(self, before: Sequence[Placed], now: Sequence[Placed], picture: tuple[int, int]) -> None:
        then, here = self._then, self._here = _sides(before), _sides(now)
        self._picture = np.array([[picture[1]], [picture[0]]], np.float64)
        cut_then, cut_here = _cut(before)[:, None], _cut(now)[None]
        free: NDArray[np.bool_] = np.logical_not(np.logical_or(cut_then, cut_here))
        moved = here[None] - then[:, None]
        weights = free.astype(np.float64)
        count = weights.sum(3)
        self._is_bound = count > 0
        self.step = np.where(self._is_bound, (moved * weights).sum(3) / np.maximum(count, 1), 0.0)
        extent = np.minimum((then[:, :, 1] - then[:, :, 0])[:, None], (here[:, :, 1] - here[:, :, 0])[None])
        larger = np.maximum((then[:, :, 1] - then[:, :, 0])[:, None], (here[:, :, 1] - here[:, :, 0])[None])
        partly = np.asarray(~free.all((2, 3)), np.bool_)
        # Cut on this axis or on none: the sides count. Cut on the other one alone: its shape changes here.
        crosses = np.asarray(partly[..., None] & free.all(3), np.bool_)
        self._is_bound &= ~crosses | (count > 1)
        self.slack = np.where(crosses, 0.5 * larger, _LEAST_TOLERANCE_PX + _OF_SIZE * extent)
        difference = np.abs(moved[..., 1] - moved[..., 0])
        is_as_large = np.asarray(difference <= _SAME_SIZE * larger + _LEAST_TOLERANCE_PX, np.bool_)
        self.is_like = np.asarray((is_as_large | partly[..., None]).all(2), np.bool_)
        # What leaves on one side is not what comes on the other.
        self.is_like &= np.asarray(np.asarray(free.any(3) | (cut_then & cut_here).any(3), np.bool_).all(2), np.bool_)
        # A side that comes into view was outside before, and one that goes is outside afterwards.
        outwards = moved * np.array([-1.0, 1.0])
        self._comes = cut_then & ~cut_here
        self._outwards = np.where(cut_then & ~cut_here, -outwards, np.where(cut_here & ~cut_then, outwards, -_FAR))
        self.weight = np.where(partly, 0.5, 1.0)
        self._crosses = crosses

    def distance(self, displacement: Vector) -> NDArray[np.float64]:
        """(before, now): how far each pair is from this displacement, 1 being the limit."""
        way = np.hypot(*displacement)
        slack = self.slack + _OF_WAY * way
        off = np.where(self._is_bound, np.abs(self.step - np.array(displacement)) / slack, 0.0).max(2)
        off = np.maximum(off, self._beyond(displacement, slack))
        return np.asarray(np.where(self.is_like, off, _FAR))

    def displacement(
        self,
        likely: Sequence[Vector],
        trust: NDArray[np.float64],
        axis: Vector | None = None,
        longest: float = np.inf,
    ) -> tuple[Vector, bool]:
        """With which most outlines coincide, and whether any does.

        Args:
            likely: As the belt ran before, and standing still; at least one.
            trust: (before,): how much each counts, 0 to 1.
            axis: Direction of the belt, of length 1; None: not known yet.
            longest: Length that it cannot exceed.
        """
        tried = [*likely, *self._votes(trust, axis, longest)]
        support = np.array([self._support(vector, trust) for vector in tried])
        if not support.any():
            return likely[0], False
        against = np.array([self._against(vector, trust) for vector in tried])
        vectors = np.array(tried)
        askew = np.abs(vectors).min(1) / np.maximum(np.abs(vectors).max(1), 1.0)
        score = support * (1 - _ASKEW * askew) - against - 1e-4 * np.hypot(vectors[:, 0], vectors[:, 1])
        score[: len(likely)] += _AS_BEFORE * trust.max()
        score[support <= 0] = -np.inf
        return self._refined(tried[int(np.argmax(score))], trust), True

    def _votes(self, trust: NDArray[np.float64], axis: Vector | None, longest: float) -> list[Vector]:
        pairs = self.is_like & self._is_bound.any(2) & (trust > 0)[:, None]
        votes = self.step[pairs]
        votes = votes[np.hypot(votes[:, 0], votes[:, 1]) <= longest]
        if axis is not None:
            across = np.abs(votes @ np.array([-axis[1], axis[0]]))
            votes = votes[across <= _LEAST_TOLERANCE_PX + _OF_WAY * np.abs(votes @ np.array(axis))]
        different = np.unique(np.round(votes), axis=0)[:_MOST_VOTES]  # the chosen one is refined
        return [(float(x), float(y)) for x, y in different]

    def _support(self, displacement: Vector, trust: NDArray[np.float64]) -> float:
        near = np.maximum(0.0, 1 - self._exactly(displacement)) * self.weight
        return float((near.max(1, initial=0.0) * trust).sum())

    def _against(self, displacement: Vector, trust: NDArray[np.float64]) -> float:
        """What should be in view and isn't, or was not and should have been."""
        near = np.maximum(0.0, 1 - self._exactly(displacement))
        by = np.array(displacement)[:, None]
        lost = (1 - near.max(1, initial=0.0)) * trust * self._is_inside(self._then + by)
        new = (1 - near.max(0, initial=0.0)) * trust.max(initial=0.0) * self._is_inside(self._here - by)
        return float(_UNEXPLAINED * (lost.sum() + new.sum()))

    def _is_inside(self, sides: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(((sides > 1) & (sides < self._picture - 1)).all((1, 2)))

    def _exactly(self, displacement: Vector) -> NDArray[np.float64]:
        off = np.where(self._is_bound, np.abs(self.step - np.array(displacement)) / self.slack, 0.0).max(2)
        off = np.maximum(off, self._beyond(displacement, self.slack))
        return np.asarray(np.where(self.is_like, off, _FAR))

    def _beyond(self, displacement: Vector, slack: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far sides are off that have come into view, or gone, with this displacement; 1 is the limit."""
        carried = np.array(displacement)[:, None] * np.array([-1.0, 1.0])
        outwards = np.where(self._comes, self._outwards + carried, self._outwards - carried)
        return np.asarray((outwards / slack[..., None]).max((2, 3)))

    def _refined(self, displacement: Vector, trust: NDArray[np.float64]) -> Vector:
        """Median step of the pairs that coincide, those in whole view first."""
        pairs = (self._exactly(displacement) < 1) & (trust >= trust.max() / 2)[:, None]
        whole = pairs & (self.weight == 1)
        chosen = whole if whole.any() else pairs
        result = []
        for axis in (0, 1):
            known = chosen & self._is_bound[..., axis] & ~self._crosses[..., axis]
            steps = self.step[..., axis][known]
            result.append(float(np.median(steps)) if steps.size else displacement[axis])
        return result[0], result[1]


def _sides(outlines: Sequence[Placed]) -> NDArray[np.float64]:
    """(outlines, axis, lower and upper side)."""
    rows = [((o.sides.left, o.sides.right), (o.sides.top, o.sides.bottom)) for o in outlines]
    return np.array(rows, np.float64).reshape(-1, 2, 2)


def _cut(outlines: Sequence[Placed]) -> NDArray[np.bool_]:
    """The same shape: whether each side lies on the picture's edge."""
    rows = [((o.is_cut[0], o.is_cut[2]), (o.is_cut[1], o.is_cut[3])) for o in outlines]
    return np.array(rows, np.bool_).reshape(-1, 2, 2)
