"""Whether good parts and their light walk away from calibration: an early warning, which changes no verdict.

Parts that are OK are held against calibration's good images that this threshold would pass, too: score, light, colour
and sharpness. Among all parts, high scores are counted. Neighbours are alike (frames of one part, a lamp that flickers,
a cloud), and so an hour is one block; a sequential test counts the blocks that lie beyond what calibration's sample can
mean, see ``SequentialTest``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from agent.drift.reference_ranks import SIDES, HighScores, ReferenceRanks, high_quantile
from agent.drift.report import DriftFinding, DriftReport
from agent.drift.sequential_test import SequentialTest
from calibration.camera_checks import frame_statistics
from calibration.imaging.region import to_grey
from calibration.statistics.threshold import share_above

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

    Float64: TypeAlias = NDArray[np.float64]

FALSE_ALARM_DAYS = 365
"""Of inspection, day and night: no sooner comes a warning without a cause, on average and of all kinds together."""
BLOCK_S = 3600.0
BLOCK_PARTS = 30
_DAY_S = 86_400.0
_RECENT = 12
_PART_EVERY_S = (5.0, 15.0)
_OLDER = "the bundle was made before there was this"
_TOO_FEW = "too few good images, or too much like their neighbours"
_HIGH_SCORES = "high scores"


class _Statistic(NamedTuple):
    """What is ranked; ``tolerance`` is harmless, in its own unit."""

    name: str
    lower: str
    higher: str
    tolerance: float


# Log odds of the mean (5 % of the light of a grey picture), logs of ratios.
_RANKED = (
    _Statistic("score", "scores lower", "scores higher", 0.0),
    _Statistic("brightness", "darker", "brighter", 0.1),
    _Statistic("colour", "bluer", "redder", 0.1),
    _Statistic("sharpness", "less sharp", "sharper", 0.1),
)


class _Side:
    """One statistic in one direction."""

    def __init__(self, direction: str, share: Callable[[Float64], float]) -> None:
        self.direction = direction
        self.evidence = SequentialTest(SIDES * FALSE_ALARM_DAYS * _DAY_S / BLOCK_S)
        self._share = share
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, values: Float64, limit: float) -> None:
        share = self._share(values)
        self.evidence.add(beyond=share > limit)
        self._recent.append(share)

    @property
    def share(self) -> float:
        return float(np.mean(self._recent))


class _Watched:
    """One statistic in its directions, the last of which is upwards."""

    def __init__(
        self, name: str, compared: ReferenceRanks | HighScores, typical_of: Callable[[Float64], float], *sides: _Side
    ) -> None:
        self._name = name
        self._compared = compared
        self._typical_of = typical_of
        self._sides = sides
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, values: Float64) -> DriftFinding:
        """One block further: what is known of it now."""
        for side in self._sides:
            side.add(values, self._compared.limit)
        self._recent.append(self._typical_of(values))
        side = max(self._sides, key=lambda side: (side.evidence.found, side.share))
        return DriftFinding(
            statistic=self._name,
            goes_up=side is self._sides[-1],
            direction=side.direction,
            share=side.share,
            limit=self._compared.limit,
            evidence=side.evidence.strength,
            found=side.evidence.found,
            now=float(np.mean(self._recent)),
            calibrated=self._compared.typical,
        )


class DriftWatch:
    """Of one bundle and one threshold; with another it begins anew.

    Args:
        reference: Arrays of ``reference.npz``. What an older bundle lacks is not watched.
        threshold: A score above it is NotOK.

    Attributes:
        off: Statistics that cannot be watched, with the reason.
        report: What is known now; another object after each block, for any thread.
    """

    def __init__(self, reference: Mapping[str, NDArray[Any]], threshold: float) -> None:
        self._reference = reference
        self._scores: Float64 = reference["good_scores"]
        self._threshold = threshold
        self._watched = _watched(reference, self._scores <= threshold)
        self.off = _off(reference, set(self._watched))
        self._random = np.random.default_rng(0)
        self._due_ns = self._began_ns = 0
        self._block: list[tuple[float, ...]] = []
        self._findings: dict[str, DriftFinding] = {}
        self.report = DriftReport(0, (), share_above(self._scores, threshold), None, self.off)

    def at(self, threshold: float) -> DriftWatch:
        """A new one, for another threshold."""
        return DriftWatch(self._reference, threshold)

    @property
    def cause(self) -> str | None:
        """Of an alert: what has drifted most; None while nothing has."""
        return self.report.cause

    def note(self, prepared: Image, score: float, captured_ns: int) -> None:
        """A part that was judged; one in about ten seconds is looked at, by chance: no rhythm of the line is met.

        Args:
            prepared: Network input.
            score: Of the network, finite.
            captured_ns: Monotonic clock.
        """
        if captured_ns < self._due_ns:
            return
        self._due_ns = captured_ns + round(self._random.uniform(*_PART_EVERY_S) * 1e9)
        self.add((score, *appearance(prepared)), captured_ns)

    def add(self, values: tuple[float, ...], captured_ns: int) -> None:
        """The same with what is watched of it: score and ``appearance``."""
        if not self._block:
            self._began_ns = captured_ns
        self._block.append(values)
        if len(self._block) >= BLOCK_PARTS and captured_ns - self._began_ns >= BLOCK_S * 1e9:
            self._end_block()

    def _end_block(self) -> None:
        block, self._block = np.array(self._block), []
        passed = block[block[:, 0] <= self._threshold]
        columns = {_HIGH_SCORES: block[:, 0]}
        if 2 * len(passed) >= len(block):  # where most are rejected, the others are no sample of good ones
            columns.update(zip((each.name for each in _RANKED), passed.T, strict=True))
        for name, watched in self._watched.items():
            if name in columns:
                self._findings[name] = watched.add(columns[name])
        self.report = DriftReport(
            self.report.blocks + 1,
            tuple(self._findings.values()),
            self.report.stated_rate,
            self._predicted_rate(),
            self.off,
        )

    def _predicted_rate(self) -> float | None:
        """Share of good parts above the threshold if all scores have grown as the high ones have."""
        high = self._findings.get(_HIGH_SCORES)
        if high is None or high.now <= 0.0:
            return None
        return share_above(self._scores, self._threshold * high.calibrated / high.now)


def appearance(prepared: Image) -> tuple[float, float, float]:
    """Brightness, colour and sharpness of a network input."""
    colour = frame_statistics.mean_colour(prepared)
    sharpness = frame_statistics.edges(to_grey(prepared))
    return frame_statistics.brightness_of_colour(colour), frame_statistics.warmth(colour), sharpness


def _watched(reference: Mapping[str, NDArray[Any]], passed: NDArray[np.bool_]) -> dict[str, _Watched]:
    """What calibration's images can be held against, by name."""
    sequential = "still_at_most" in reference
    watched: dict[str, _Watched] = {}
    good = _good(reference)
    for each in _RANKED:
        if each.name in good and passed.any():
            ranks = ReferenceRanks(good[each.name][passed], each.tolerance, sequential=sequential)
            sides = _Side(each.lower, ranks.lower), _Side(each.higher, ranks.higher)
            if ranks.can_tell:
                watched[each.name] = _Watched(each.name, ranks, lambda values: float(np.median(values)), *sides)
    scores = HighScores(good["score"], sequential=sequential)
    if scores.can_tell:
        more = _Side("more high scores", scores.share)
        watched[_HIGH_SCORES] = _Watched(_HIGH_SCORES, scores, high_quantile, more)
    return watched


def _off(reference: Mapping[str, NDArray[Any]], watched: set[str]) -> dict[str, str]:
    known = {*_good(reference), _HIGH_SCORES}
    names = [*(each.name for each in _RANKED), _HIGH_SCORES]
    return {name: _TOO_FEW if name in known else _OLDER for name in names if name not in watched}


def _good(reference: Mapping[str, NDArray[Any]]) -> dict[str, Float64]:
    """By statistic, of the good images."""
    colours = reference["brightness"]
    good: dict[str, Float64] = {
        "score": reference["good_scores"],
        "brightness": np.array([frame_statistics.brightness_of_colour(each) for each in colours]),
        "colour": np.array([frame_statistics.warmth(each) for each in colours]),
    }
    if "edges" in reference:
        good["sharpness"] = reference["edges"]
    return good
