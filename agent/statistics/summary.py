"""Adds counts up to hours, shifts or days of this device's time zone, and names the causes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.messages.records import CODE_NAMES, Evaluation
from agent.statistics.tables import QUARTER_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.statistics.tables import Counts

By: TypeAlias = Literal["hour", "shift", "day"]


@dataclass
class Total:
    """What is known of the results of a time.

    Attributes:
        verdicts: Number of results by `Evaluation`.
        causes: Number of results that are not OK, by cause.
        scored: Results that have a score and a threshold.
        scores: Sum of their scores.
        thresholds: Sum of their thresholds.
        highest: Highest score as a multiple of the threshold; None without a score.
    """

    verdicts: Counter[int] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    scores: float = 0.0
    thresholds: float = 0.0
    highest: float | None = None

    def add(self, counts: Counts) -> None:
        """Add some more."""
        self.verdicts[counts.evaluation] += counts.results
        if counts.evaluation != Evaluation.OK:
            self.causes[cause_of(counts.evaluation, counts.code, counts.zone)] += counts.results
        self._add_scores(counts)

    def include(self, other: Total) -> None:
        """Add all of another time."""
        self.verdicts.update(other.verdicts)
        self.causes.update(other.causes)
        self._add_scores(other)

    def _add_scores(self, more: Counts | Total) -> None:
        self.scored += more.scored
        self.scores += more.scores
        self.thresholds += more.thresholds
        self.highest = max((each for each in (self.highest, more.highest) if each is not None), default=None)

    @property
    def parts(self) -> int:
        """Number of results."""
        return self.verdicts.total()

    @property
    def rejects(self) -> float:
        """Share of results that are not OK, as the line rejects them."""
        return 1 - self.verdicts[Evaluation.OK] / self.parts if self.parts else 0.0

    @property
    def mean_score(self) -> float | None:
        """Mean score; None without one."""
        return self.scores / self.scored if self.scored else None

    @property
    def mean_threshold(self) -> float | None:
        """Mean threshold of the same results."""
        return self.thresholds / self.scored if self.scored else None

    @property
    def mean_ratio(self) -> float | None:
        """Mean score as a multiple of the mean threshold."""
        return self.scores / self.thresholds if self.thresholds else None


def cause_of(evaluation: int, code: int, zone: str) -> str:
    """Why a result is not OK: a defect, with its zone where there are several, or the meaning of its code."""
    why = "defect" if evaluation == Evaluation.NOT_OK and not code else CODE_NAMES.get(code, f"code {code}")
    return f"{why} in {zone}" if zone else why


def totals(counts: Iterable[Counts], by: By, shifts: Mapping[str, int]) -> dict[tuple[datetime, str], Total]:
    """Start of each hour, shift or day with results, and name of the shift -> its total; in the order of time.

    Args:
        counts: See `tables.counts_between`.
        by: What to add up to.
        shifts: Name of each shift -> its start, minutes after midnight, a multiple of 15.
    """
    quarters: dict[int, Total] = {}
    for each in counts:
        quarters.setdefault(each.quarter, Total()).add(each)
    found: dict[tuple[datetime, str], Total] = {}
    for quarter, total in quarters.items():
        local = datetime.fromtimestamp(quarter * QUARTER_MS / 1000).astimezone()
        found.setdefault(_start(local, by, shifts), Total()).include(total)
    return dict(sorted(found.items()))


def _start(local: datetime, by: By, shifts: Mapping[str, int]) -> tuple[datetime, str]:
    midnight = local.replace(hour=0, minute=0)
    if by == "day":
        return _at(midnight, 0), ""
    if by == "hour":
        return local.replace(minute=0), ""
    minute = local.hour * 60 + local.minute
    earlier = {start: name for name, start in shifts.items() if start <= minute}
    if earlier:
        start = max(earlier)
        return _at(midnight, start), earlier[start]
    name, start = max(shifts.items(), key=lambda shift: shift[1])  # it began yesterday
    return _at(midnight - timedelta(days=1), start), name


def _at(midnight: datetime, minutes: int) -> datetime:
    """A time of day by the clock on the wall, also on days on which it is set."""
    return (midnight.replace(tzinfo=None) + timedelta(minutes=minutes)).astimezone()
