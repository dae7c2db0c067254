"""Whether good parts and their light walk away from calibration: an early warning, which changes no verdict.

Good is what is judged OK: its score and the light, colour and sharpness of its frame are held against those of
calibration's good images that this threshold would pass, too. What is the same for minutes (frames of one part, a lamp
that flickers, a cloud) is one block; a sequential test counts the blocks that lie beyond what calibration's sample can
mean, see ``Evidence``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from agent.drift.comparison import Comparison
from agent.drift.evidence import ENDS_AFTER, Evidence
from agent.drift.report import DriftReport, Finding
from calibration import frame_statistics
from calibration.working_point import share_above

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.preprocess import Image

    Float64: TypeAlias = NDArray[np.float64]

FALSE_ALARM_DAYS = 365
"""Of inspection, day and night: no sooner comes a warning without a cause, on average and of all kinds together."""
BLOCK_S = 300.0
BLOCK_PARTS = 30
_DAY_S = 86_400.0
_PART_EVERY_S = (0.5, 1.5)
_OLDER = "the bundle was made before there was this"
_TOO_FEW = "too few good images, or too much like their neighbours"


class _Statistic(NamedTuple):
    """What is watched; ``tolerance`` is harmless, in its own unit."""

    name: str
    lower: str
    higher: str
    tolerance: float


# Log odds of the mean (5 % of the light of a grey picture), logs of ratios.
_STATISTICS = (
    _Statistic("score", "scores lower", "scores higher", 0.0),
    _Statistic("brightness", "darker", "brighter", 0.1),
    _Statistic("colour", "bluer", "redder", 0.1),
    _Statistic("sharpness", "less sharp", "sharper", 0.1),
)


class _Watched:
    """One statistic in both directions."""

    def __init__(self, statistic: _Statistic, comparison: Comparison) -> None:
        every_blocks = 2 * len(_STATISTICS) * FALSE_ALARM_DAYS * _DAY_S / BLOCK_S
        self._statistic = statistic
        self._comparison = comparison
        self._lower, self._higher = Evidence(every_blocks), Evidence(every_blocks)
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=ENDS_AFTER)

    def add(self, values: Float64) -> Finding:
        """One block further: what is known of it now."""
        lower, higher = self._comparison.lower(values), self._comparison.higher(values)
        self._lower.add(beyond=lower > self._comparison.limit)
        self._higher.add(beyond=higher > self._comparison.limit)
        self._recent.append((lower, higher, float(np.median(values))))
        return self._finding()

    def _finding(self) -> Finding:
        lower, higher, now = np.mean(self._recent, axis=0).tolist()
        goes_up = (self._higher.found, higher) > (self._lower.found, lower)
        side = self._higher if goes_up else self._lower
        return Finding(
            statistic=self._statistic.name,
            goes_up=goes_up,
            direction=self._statistic.higher if goes_up else self._statistic.lower,
            share=higher if goes_up else lower,
            limit=self._comparison.limit,
            evidence=side.strength,
            found=side.found,
            now=now,
            calibrated=self._comparison.typical,
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
        good = _good(reference, self._scores <= threshold)
        self.off = {each.name: _OLDER for each in _STATISTICS if each.name not in good}
        self._watched: dict[str, _Watched] = {}
        for each in _STATISTICS:
            if len(good.get(each.name, ())):
                comparison = Comparison(good[each.name], each.tolerance)
                if comparison.can_tell:
                    self._watched[each.name] = _Watched(each, comparison)
        self.off.update({name: _TOO_FEW for name in good if name not in self._watched})
        self._stated = share_above(self._scores, threshold)
        self._random = np.random.default_rng(0)
        self._due_ns = self._began_ns = 0
        self._block: list[tuple[float, ...]] = []
        self.report: DriftReport = DriftReport(0, (), self._stated, None, self.off)

    def at(self, threshold: float) -> DriftWatch:
        """A new one, for another threshold."""
        return DriftWatch(self._reference, threshold)

    @property
    def cause(self) -> str | None:
        """Of an alert: the direction with most evidence; None while there is no drift."""
        return self.report.cause

    def note(self, prepared: Image, score: float, captured_ns: int) -> None:
        """A part that is OK; one a second or so is looked at, by chance, so that no rhythm of the line is met.

        Args:
            prepared: Network input.
            score: Of the network.
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
        columns = dict(zip((each.name for each in _STATISTICS), np.array(self._block).T, strict=True))
        self._block = []
        findings = tuple(watched.add(columns[name]) for name, watched in self._watched.items())
        self.report = DriftReport(self.report.blocks + 1, findings, self._stated, self._predicted(findings), self.off)

    def _predicted(self, findings: tuple[Finding, ...]) -> float | None:
        """Share of good parts above the threshold if all scores have grown as their median has."""
        for each in findings:
            if each.statistic == "score" and each.now > 0.0:
                return share_above(self._scores, self._threshold * each.calibrated / each.now)
        return None


def appearance(prepared: Image) -> tuple[float, float, float]:
    """Brightness, colour and sharpness of a network input."""
    colour = frame_statistics.mean_colour(prepared)
    sharpness = frame_statistics.edges(frame_statistics.grey_of(prepared))
    return frame_statistics.light_of(colour), frame_statistics.warmth_of(colour), sharpness


def _good(reference: Mapping[str, NDArray[Any]], passed: NDArray[np.bool_]) -> dict[str, Float64]:
    """By statistic, of the good images that pass."""
    colours = reference["brightness"]
    good: dict[str, Float64] = {
        "score": reference["good_scores"],
        "brightness": np.array([frame_statistics.light_of(each) for each in colours]),
        "colour": np.array([frame_statistics.warmth_of(each) for each in colours]),
    }
    if "edges" in reference:
        good["sharpness"] = reference["edges"]
    return {name: values[passed] for name, values in good.items()}
