"""The state of a drift watch in numbers and words."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.messages.fields import finite_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.drift.first_parts import FirstPartsFinding
    from agent.messages.records import Payload

CHECK = "check lamp and lens"
REMEDY_SUDDEN = (
    f"{CHECK}, and that this is the right product; if it is to stay like this, with good parts: "
    "shiftwatch-agent recalibrate"
)
REMEDY = "clean the lens, check the lamp, or recalibrate: shiftwatch-agent recalibrate"
_SYMPTOMS = {"score", "high scores"}
_CLEAR, _STRONG = 0.3, 0.7


@dataclass(frozen=True, slots=True)
class DriftFinding:
    """The state of one statistic; ``now`` and ``share`` cover the last twelve blocks.

    Attributes:
        goes_up: Whether the stronger direction is upwards.
        direction: The direction in words.
        share: Share of parts that lie in this direction from a random good image (unchanged: 0.5), or share of high
            scores (unchanged: 0.2).
        limit: What the share must exceed in most blocks to be drift.
        evidence: From 0 to 1; drift is found at 1.
        found: Whether the statistic has drifted.
        now: Median; for high scores the value that a fifth of all scores exceed.
        calibrated: The same for calibration's good images.
    """

    statistic: str
    goes_up: bool
    direction: str
    share: float
    limit: float
    evidence: float
    found: bool
    now: float
    calibrated: float

    @property
    def beyond(self) -> float:
        """How far the share is beyond the limit: 0 at the limit, at most 1."""
        return (self.share - self.limit) / (1.0 - self.limit)

    @property
    def strength(self) -> str:
        """The size of the drift in a word."""
        if not self.found:
            return "none"
        return "strong" if self.beyond >= _STRONG else "clear" if self.beyond >= _CLEAR else "slight"

    def payload(self) -> Payload:
        """Content of a statistic in ``drift`` of ``health``."""
        return {
            "direction": self.direction if self.found else None,
            "strength": self.strength,
            "share": round(self.share, 3),
            "limit": round(self.limit, 3),
            "evidence": round(self.evidence, 3),
            "now": finite_or_none(self.now),
            "calibrated": self.calibrated,
        }


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The state of all statistics.

    Attributes:
        blocks: Number of finished blocks.
        findings: One for each statistic; empty before the first block.
        stated_rate: Share of good parts above the threshold, from calibration.
        predicted_rate: The same with current scores; None if not known.
        off: Statistic that is not watched -> reason.
        since_ms: Since when all parts are rejected for a cause that is in none of them, wall clock; None if not so.
        first: How the first hundred parts differ from calibration; None if they do not.
    """

    blocks: int
    findings: tuple[DriftFinding, ...]
    stated_rate: float
    predicted_rate: float | None
    off: Mapping[str, str] = field(default_factory=dict)
    since_ms: int | None = None
    first: FirstPartsFinding | None = None

    @property
    def cause(self) -> str | None:
        """Cause of the alert; None without drift."""
        return self.cause_in("")

    def cause_in(self, zone: str) -> str | None:
        """The same with the name of its zone, if that has one."""
        place = f" in {zone}" if zone else ""
        if self.since_ms is not None:
            clock = time.strftime("%H:%M", time.localtime(self.since_ms / 1000))
            return f"drift: all parts{place} since {clock}: {CHECK}"
        worst = self._worst
        if worst is not None:
            return f"drift: {worst.direction}{place}"
        return None if self.first is None else f"drift: {self.first.words}{place}"

    @property
    def remedy(self) -> str | None:
        """What to do; None without drift."""
        if self.since_ms is not None:
            return REMEDY_SUDDEN
        if self._worst is not None:
            return REMEDY
        return None if self.first is None else self.first.remedy

    @property
    def _worst(self) -> DriftFinding | None:
        found = [each for each in self.findings if each.found]
        # A change in the image says more than its effect on the scores.
        return max(found, key=lambda each: (each.statistic not in _SYMPTOMS, each.beyond), default=None)

    def words_in(self, zone: str) -> str:
        """What has drifted, for people; empty without drift."""
        found = [f"{each.direction} ({each.strength})" for each in self.findings if each.found]
        if self.since_ms is None and found:
            return f"drift: {', '.join(found)}{f' in {zone}' if zone else ''}"
        return self.cause_in(zone) or ""

    def payload(self) -> Payload:
        """Content of ``drift`` in ``health``, or of a zone in it."""
        return {
            "cause": self.cause,
            "remedy": self.remedy,
            "allPartsSince": self.since_ms,
            "firstParts": None if self.first is None else self.first.payload(),
            "blocks": self.blocks,
            "falseRejectRate": {"stated": self.stated_rate, "predicted": self.predicted_rate},
            "statistics": {each.statistic: each.payload() for each in self.findings},
            "off": dict(self.off),
        }


def drift_payload(reports: Mapping[str, DriftReport]) -> Payload | None:
    """Content of ``drift`` in ``health``, from the report of each zone; None if drift is not watched."""
    if not reports or "" in reports:
        return reports[""].payload() if reports else None
    # What rejects all parts comes first.
    worst = max(reports, key=lambda zone: (reports[zone].since_ms is not None, reports[zone].cause is not None))
    return {
        "cause": reports[worst].cause_in(worst),
        "remedy": reports[worst].remedy,
        "zones": {zone: report.payload() for zone, report in reports.items()},
    }
