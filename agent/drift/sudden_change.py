"""Whether parts are rejected in a row for a cause that is in none of them: another light, a lens that has moved.

A defect lifts the score map at some place, and may darken that place. A change before the camera lifts the map, or
darkens or brightens the picture, at more than half of the places, alike in nearly all parts. So a row of rejects is
held against calibration as a whole, place by place. No figure of the whole picture will do: one scratch can make it
sharper, one stain redder, than any good one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from agent.drift.reference_ranks import high_quantile
from calibration.camera_checks.frame_statistics import brightness_of_colour
from calibration.camera_checks.reference import THUMBNAIL
from calibration.imaging.region import to_grey
from calibration.statistics.scores import EPSILON

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

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
"""Harmless difference of brightness, in log odds of the grey level, as for slow drift: 5 % of the light."""


class SuddenChange:
    """Watches the parts of one bundle with one threshold.

    Args:
        reference: Arrays of ``reference.npz``. A score map of fewer than `LEAST_CELLS` cells is not used: in it, a
            defect is everywhere.

    Attributes:
        since_ms: When the first part of the row was captured, wall clock; None while there is no sudden change.
    """

    def __init__(self, reference: Mapping[str, NDArray[Any]]) -> None:
        self.since_ms: int | None = None
        scores, maps = reference["good_scores"], reference.get("highest_maps")
        self._usual_score = _log(np.median(scores))
        self._least_rise = _log(high_quantile(scores)) - self._usual_score
        self._usual_map = None if maps is None or not len(maps) or maps[0].size < LEAST_CELLS else _usual(maps)
        mean = reference.get("thumbnail_mean")
        self._usual_light = None if mean is None else _log_odds(mean)
        good = np.array([brightness_of_colour(each) for each in reference["brightness"]])
        self._light_limits = good.min() - np.median(good) - TOLERANCE, good.max() - np.median(good) + TOLERANCE
        self._began_ms: int | None = None
        self._row: list[tuple[float, Float32, Float64]] = []
        self._ok_in_a_row = 0

    def note_ok(self) -> None:
        """Note a part that is OK."""
        self._row, self._began_ms = [], None
        self._ok_in_a_row += 1
        if self._ok_in_a_row >= ENDS_AFTER:
            self.since_ms = None

    def note_reject(self, score: float, score_map: Float32, prepared: Image, captured_ms: int) -> None:
        """Note a part that is NotOK."""
        self._ok_in_a_row = 0
        if self._began_ms is None:
            self._began_ms = captured_ms
        if self.since_ms is not None:
            return
        self._row.append((score, score_map, _light(prepared)))
        if len(self._row) == ROW:
            if self._is_everywhere() or self._light_differs():
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

    def _light_differs(self) -> bool:
        """Whether nearly all parts are darker than good pictures at more than half of the places, or are brighter."""
        if self._usual_light is None:
            return False
        light = np.stack([light for *_, light in self._row]) - self._usual_light
        darker, brighter = np.quantile(light, (1.0 - NEARLY_ALL, NEARLY_ALL), axis=0)
        least, most = self._light_limits
        return bool(np.median(darker) < least or np.median(brighter) > most)


def _light(prepared: Image) -> Float64:
    """Brightness at each place, (32, 32)."""
    return _log_odds(cv2.resize(to_grey(prepared), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA))


def _log_odds(grey: NDArray[Any]) -> Float64:
    share = (np.clip(grey, 0.0, 255.0) + 0.5) / 256
    return np.asarray(np.log(share / (1.0 - share)), np.float64)


def _usual(maps: Float32) -> Float64:
    """Logarithm of the score map of a good image; a stray among the few does not move a median."""
    usual: Float64 = np.median(_log(maps), axis=0)
    return usual


def _log(values: float | Float32 | np.floating) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(values, np.float64), EPSILON))
