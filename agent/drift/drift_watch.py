"""Watches whether good parts or their lighting drift away from calibration: an early warning that changes no verdict.

OK parts are compared with calibration's good images that the same threshold passes, by score, brightness, colour and
sharpness. High scores are counted among all parts. Successive parts are alike (a flickering lamp, a cloud), so one hour
makes one block. A sequential test counts the blocks that lie beyond what calibration's sample allows.

What cannot wait for hours is watched part by part: rejects in a row (`sudden_change`), and the first hundred parts
(`first_parts`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from agent.drift.first_parts import FirstParts
from agent.drift.reference_ranks import HIGHEST_LIMIT, SIDES, HighScores, ReferenceRanks, high_quantile
from agent.drift.report import DriftFinding, DriftReport
from agent.drift.sequential_test import SequentialTest
from agent.drift.sudden_change import TOLERANCE, SuddenChange
from calibration.camera_checks import frame_statistics
from calibration.imaging.region import to_grey
from calibration.statistics.threshold import share_above

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from agent.camera import Frame
    from calibration.engine.contract import Inference
    from calibration.imaging.preprocess import Image

    Float64: TypeAlias = NDArray[np.float64]

FALSE_ALARM_DAYS = 365
"""Average time to a warning without a cause, of any kind, in days of continuous inspection."""
BLOCK_S = 3600.0
BLOCK_PARTS = 30
_DAY_S = 86_400.0
_RECENT = 12
_PART_EVERY_S = (5.0, 15.0)
_OLDER = "the bundle is older than this check"
_TOO_FEW = "too few good images, or too much like their neighbours"
_HIGH_SCORES = "high scores"


class _Ranked(NamedTuple):
    """A statistic that is ranked. A change by ``tolerance``, in its own unit, is harmless."""

    name: str
    lower: str
    higher: str
    tolerance: float


# Units: brightness in log odds of the mean (0.1 is 5 % of the light of a grey image), the others in logs of ratios.
_RANKED = (
    _Ranked("score", "scores lower", "scores higher", 0.0),
    _Ranked("brightness", "darker", "brighter", TOLERANCE),
    _Ranked("colour", "bluer", "redder", TOLERANCE),
    _Ranked("sharpness", "less sharp", "sharper", TOLERANCE),
)
_NAMES = (*(each.name for each in _RANKED), _HIGH_SCORES)


class _Side:
    """One statistic in one direction."""

    def __init__(self, direction: str, share: Callable[[Float64], float]) -> None:
        self.direction = direction
        self.test = SequentialTest(SIDES * FALSE_ALARM_DAYS * _DAY_S / BLOCK_S)
        self._share = share
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, values: Float64, limit: float) -> None:
        share = self._share(values)
        self.test.add(beyond=share > limit)
        self._recent.append(share)

    @property
    def share(self) -> float:
        return float(np.mean(self._recent))


class _StatisticWatch:
    """One statistic in its directions; the last is upwards."""

    def __init__(
        self, name: str, reference: ReferenceRanks | HighScores, typical_of: Callable[[Float64], float], *sides: _Side
    ) -> None:
        self._name = name
        self._reference = reference
        self._typical_of = typical_of
        self._sides = sides
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, values: Float64) -> DriftFinding:
        """Add a block and return the current finding."""
        for side in self._sides:
            side.add(values, self._reference.limit)
        self._recent.append(self._typical_of(values))
        side = max(self._sides, key=lambda side: (side.test.found, side.share))
        return DriftFinding(
            statistic=self._name,
            goes_up=side is self._sides[-1],
            direction=side.direction,
            share=side.share,
            limit=self._reference.limit,
            evidence=side.test.strength,
            found=side.test.found,
            now=float(np.mean(self._recent)),
            calibrated=self._reference.typical,
        )


class DriftWatch:
    """Watches one bundle with one threshold.

    Args:
        reference: Arrays of ``reference.npz``. Statistics that an older bundle lacks are not watched.
        threshold: A score above it is NotOK.
        part_every_s: Successive frames within this time show the same part; 0 where each is a part of its own.

    Attributes:
        report: The current state; replaced when it changes, so any thread may read it.
    """

    def __init__(self, reference: Mapping[str, NDArray[Any]], threshold: float, part_every_s: float = 0.0) -> None:
        self._reference = reference
        self._part_every_s = part_every_s
        self._scores: Float64 = reference["good_scores"]
        self._threshold = threshold
        good = good_statistics(reference)
        sequential = "still_at_most" in reference
        self._watched = _statistic_watches(good, self._scores <= threshold, sequential=sequential)
        words = {each.name: (each.lower, each.higher) for each in _RANKED}
        looks = {name: good[name] for name in words if name in good and name != "score"}
        self._sudden = SuddenChange(reference)
        self._first = FirstParts(self._scores, looks, words, sequential=sequential)
        self._next_part_ns = 0
        self._random = np.random.default_rng(0)
        self._due_ns = self._began_ns = 0
        self._block: list[tuple[float, ...]] = []
        self._findings: dict[str, DriftFinding] = {}
        off = {name: _TOO_FEW if name in good else _OLDER for name in _NAMES if name not in self._watched}
        self.report = DriftReport(0, (), share_above(self._scores, threshold), None, off)

    def with_threshold(self, threshold: float) -> DriftWatch:
        """A new watch of the same bundle."""
        return DriftWatch(self._reference, threshold, self._part_every_s)

    def note(self, prepared: Image, inference: Inference, frame: Frame) -> None:
        """Note a part that was decided.

        Args:
            prepared: The network input.
            inference: Its score and score map.
            frame: The frame that it was made of.
        """
        looks = cache(lambda: appearance(prepared))
        self._note_at_once(prepared, inference, looks, frame)
        # About one part in ten seconds, at random, to avoid any rhythm of the production line.
        if frame.captured_ns >= self._due_ns:
            self._due_ns = frame.captured_ns + round(self._random.uniform(*_PART_EVERY_S) * 1e9)
            self.add((inference.score, *looks()), frame.captured_ns)

    def _note_at_once(
        self, prepared: Image, inference: Inference, looks: Callable[[], tuple[float, ...]], frame: Frame
    ) -> None:
        """What is watched part by part."""
        is_new = frame.captured_ns >= self._next_part_ns
        if is_new:
            self._next_part_ns = frame.captured_ns + round(self._part_every_s * 1e9)
        if inference.score <= self._threshold:
            self._sudden.note_ok()
        elif is_new:
            self._sudden.note_reject(inference.score, inference.map, prepared, frame.captured_at_ms)
        if is_new and not self._first.is_over:
            self._first.add(inference.score, looks())
        now = self._sudden.since_ms, self._first.finding
        if now != (self.report.since_ms, self.report.first):
            self.report = replace(self.report, since_ms=now[0], first=now[1])

    def add(self, values: tuple[float, ...], captured_ns: int) -> None:
        """Add a part by its score and ``appearance``."""
        if not self._block:
            self._began_ns = captured_ns
        self._block.append(values)
        if len(self._block) >= BLOCK_PARTS and captured_ns - self._began_ns >= BLOCK_S * 1e9:
            self._end_block()

    def _end_block(self) -> None:
        block, self._block = np.array(self._block), []
        passed = block[block[:, 0] <= self._threshold]
        columns = {_HIGH_SCORES: block[:, 0]}
        if 2 * len(passed) >= len(block):  # if most parts are rejected, the others do not represent good ones
            columns.update(zip((each.name for each in _RANKED), passed.T, strict=True))
        for name, watched in self._watched.items():
            if name in columns:
                self._findings[name] = watched.add(columns[name])
        self.report = replace(
            self.report,
            blocks=self.report.blocks + 1,
            findings=tuple(self._findings.values()),
            predicted_rate=self._predicted_rate(),
        )

    def _predicted_rate(self) -> float | None:
        """Share of good parts above the threshold if all scores have risen like the high ones."""
        high = self._findings.get(_HIGH_SCORES)
        if high is None or high.now <= 0.0:
            return None
        return share_above(self._scores, self._threshold * high.calibrated / high.now)


def appearance(prepared: Image) -> tuple[float, float, float]:
    """Brightness, colour and sharpness of a network input."""
    colour = frame_statistics.mean_colour(prepared)
    sharpness = frame_statistics.edges(to_grey(prepared))
    return frame_statistics.brightness_of_colour(colour), frame_statistics.warmth(colour), sharpness


def _statistic_watches(
    good: Mapping[str, Float64], passed: NDArray[np.bool_], *, sequential: bool
) -> dict[str, _StatisticWatch]:
    """Watches by name of those statistics for which the good images suffice."""
    watched: dict[str, _StatisticWatch] = {}
    for each in _RANKED:
        if each.name in good and passed.any():
            ranks = ReferenceRanks(good[each.name][passed], each.tolerance, sequential=sequential)
            sides = _Side(each.lower, ranks.lower), _Side(each.higher, ranks.higher)
            if ranks.limit <= HIGHEST_LIMIT:
                watched[each.name] = _StatisticWatch(each.name, ranks, lambda values: float(np.median(values)), *sides)
    scores = HighScores(good[_HIGH_SCORES], sequential=sequential)
    if scores.limit <= HIGHEST_LIMIT:
        more = _Side("more high scores", scores.share)
        watched[_HIGH_SCORES] = _StatisticWatch(_HIGH_SCORES, scores, high_quantile, more)
    return watched


def good_statistics(reference: Mapping[str, NDArray[Any]]) -> dict[str, Float64]:
    """Values of calibration's good images, by statistic."""
    colours = reference["brightness"]
    good: dict[str, Float64] = {
        "score": reference["good_scores"],
        _HIGH_SCORES: reference["good_scores"],
        "brightness": np.array([frame_statistics.brightness_of_colour(each) for each in colours]),
        "colour": np.array([frame_statistics.warmth(each) for each in colours]),
    }
    if "edges" in reference:
        good["sharpness"] = reference["edges"]
    return good
