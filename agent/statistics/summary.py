"""Adds counts up to hours, shifts or days of this device's time zone, and names the causes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.messages.records import CODE_NAMES, Evaluation
from agent.statistics.tables import QUARTER_MS, counts_between

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

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
        self.scored += counts.scored
        self.scores += counts.scores
        self.thresholds += counts.thresholds
        self.highest = max((each for each in (self.highest, counts.highest) if each is not None), default=None)

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


def totals_between(
    database: sqlite3.Connection, since_ms: int, until_ms: int, by: By, shifts: Mapping[str, int]
) -> dict[tuple[datetime, str], Total]:
    """Start of each hour, shift or day with results, and name of the shift -> its total; in the order of time.

    Args:
        database: See `tables.reading`.
        since_ms: First time, ms since 1970; all of its quarter of an hour.
        until_ms: Last time, likewise.
        by: What to add up to.
        shifts: Name of each shift -> its start, minutes after midnight, a multiple of 15.
    """
    periods = _Periods(by, shifts)
    found: dict[tuple[datetime, str], Total] = {}
    # SQLite adds up a year, in less than half the time that Python takes, and lets other threads work meanwhile.
    for each in counts_between(database, since_ms, until_ms, periods.__getitem__):
        found.setdefault(periods.starts[each.quarter], Total()).add(each)
    return dict(sorted(found.items()))


class _Periods(dict[int, int]):
    """Quarter of an hour -> the first one seen of the same hour, shift or day.

    Attributes:
        starts: Of those first ones: start of the hour, shift or day, and name of the shift.
    """

    def __init__(self, by: By, shifts: Mapping[str, int]) -> None:
        super().__init__()
        self.starts: dict[int, tuple[datetime, str]] = {}
        self._first: dict[tuple[datetime, str], int] = {}
        self._by: By = by
        self._shifts = shifts

    def __missing__(self, quarter: int) -> int:
        local = datetime.fromtimestamp(quarter * QUARTER_MS / 1000).astimezone()
        start = _start(local, self._by, self._shifts)
        self[quarter] = first = self._first.setdefault(start, quarter)
        self.starts[first] = start
        return first


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
