"""Whether parts are rejected in a row for a cause that is in none of them: another light, a lens that has moved.

A defect lifts the score map at some place. A change before the camera lifts it nearly everywhere, alike in nearly all
parts, or makes all pictures darker, redder or less sharp than any good one. So a row of rejects is held against
calibration as a whole, not part by part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agent.drift.reference_ranks import high_quantile
from calibration.statistics.scores import EPSILON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Float32: TypeAlias = NDArray[np.float32]
    Float64: TypeAlias = NDArray[np.float64]

ROW = 20
"""Rejects in a row that are looked at together: at random, 30 % rejects give such a row in 4e10 parts, 50 % in 2e6."""
ENDS_AFTER = 3
"""OK parts in a row that end a sudden change."""
SHARED = 0.5
"""Share of the rise of the scores, in logarithms, that is common to nearly all parts at more than half the places."""
NEARLY_ALL = 0.25  # quantile over the parts that must be beyond, so that three quarters of them are
LEAST_CELLS = 50
"""Cells of a score map in which a single point, which reaches 5 x 5 of them, is less than half."""
TOLERANCE = 0.1
"""Harmless difference of an appearance, as for slow drift: 5 % of the light."""


class SuddenChange:
    """Watches the parts of one bundle with one threshold.

    Args:
        scores: Held-out scores of the good images.
        maps: Score maps of those with the highest scores, (n, h, w); None in a bundle without them. In a map of fewer
            than `LEAST_CELLS` cells a defect is everywhere; then only the looks of the parts count.
        looks: Appearance of the good images by its name, each (images,), in the order of ``appearance``.

    Attributes:
        since_ms: When the first part of the row was captured, wall clock; None while there is no sudden change.
    """

    def __init__(self, scores: Float64, maps: Float32 | None, looks: Mapping[str, Float64]) -> None:
        self.since_ms: int | None = None
        self._usual_score = _log(np.median(scores))
        self._least_rise = _log(high_quantile(scores)) - self._usual_score
        self._usual_map = None if maps is None or not len(maps) or maps[0].size < LEAST_CELLS else _usual(maps)
        self._looks = tuple((float(good.min()) - TOLERANCE, float(good.max()) + TOLERANCE) for good in looks.values())
        self._began_ms: int | None = None
        self._row: list[tuple[float, Float32, tuple[float, ...]]] = []
        self._ok_in_a_row = 0

    def note_ok(self) -> None:
        """Note a part that is OK."""
        self._row, self._began_ms = [], None
        self._ok_in_a_row += 1
        if self._ok_in_a_row >= ENDS_AFTER:
            self.since_ms = None

    def note_reject(self, score: float, score_map: Float32, looks: tuple[float, ...], captured_ms: int) -> None:
        """Note a part that is NotOK."""
        self._ok_in_a_row = 0
        if self._began_ms is None:
            self._began_ms = captured_ms
        if self.since_ms is not None:
            return
        self._row.append((score, score_map, looks))
        if len(self._row) == ROW:
            if self._is_everywhere() or self._looks_different():
                self.since_ms = self._began_ms
            self._row = []

    def _is_everywhere(self) -> bool:
        """Whether most of the rise of the scores is in nearly all parts, at more than half of the places."""
        usual, maps = self._usual_map, [score_map for _, score_map, _ in self._row]
        if usual is None or any(each.shape != usual.shape for each in maps):
            return False
        in_nearly_all = np.quantile(_log(np.stack(maps)) - usual, NEARLY_ALL, axis=0)
        rise = _log(np.median([score for score, *_ in self._row])) - self._usual_score
        return bool(np.median(in_nearly_all) >= SHARED * max(rise, self._least_rise))

    def _looks_different(self) -> bool:
        """Whether nearly all parts are beyond all good images on the same side of an appearance."""
        for (least, most), values in zip(self._looks, np.array([looks for *_, looks in self._row]).T, strict=False):
            low, high = np.quantile(values, (NEARLY_ALL, 1.0 - NEARLY_ALL))
            if low > most or high < least:
                return True
        return False


def _usual(maps: Float32) -> Float64:
    """Logarithm of the score map of a good image; a stray among the few does not move a median."""
    usual: Float64 = np.median(_log(maps), axis=0)
    return usual


def _log(values: float | Float32 | np.floating) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(values, np.float64), EPSILON))
