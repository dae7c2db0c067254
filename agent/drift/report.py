"""What is said of drift, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.messages.records import finite_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.messages.records import Payload

REMEDY = "clean the lens, check the lamp, or recalibrate: shiftwatch-agent recalibrate"
_SYMPTOMS = {"score", "high scores"}
_CLEAR, _STRONG = 0.3, 0.7


@dataclass(frozen=True, slots=True)
class DriftFinding:
    """What is known of one statistic; ``now`` and ``share`` are of the last twelve blocks.

    Attributes:
        goes_up: The direction in which there is more to see.
        direction: The same in words.
        share: Of parts now that lie in this direction from a random good image of calibration, where 0.5 is no change;
            of high scores, where it is 0.2.
        limit: What that share must exceed in most blocks to be drift.
        evidence: From 0 to 1, which is enough.
        found: Whether it has drifted.
        now: Median; of high scores the value that a fifth of all is above.
        calibrated: The same of calibration's good images.
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
        """From 0 at the limit to 1."""
        return (self.share - self.limit) / (1.0 - self.limit)

    @property
    def strength(self) -> str:
        """In a word."""
        if not self.found:
            return "none"
        return "strong" if self.beyond >= _STRONG else "clear" if self.beyond >= _CLEAR else "slight"

    def payload(self) -> Payload:
        """Content of an entry of ``drift`` in ``health``."""
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
    """What is known of all.

    Attributes:
        blocks: So many have been seen.
        findings: By statistic; none before the first block.
        stated_rate: Share of good parts above the threshold, by calibration.
        predicted_rate: The same with the scores of now; None where it is not known.
        off: Statistics that are not watched, with the reason.
    """

    blocks: int
    findings: tuple[DriftFinding, ...]
    stated_rate: float
    predicted_rate: float | None
    off: Mapping[str, str] = field(default_factory=dict)

    @property
    def cause(self) -> str | None:
        """Of the alert; None where nothing has drifted."""
        found = [each for each in self.findings if each.found]
        # What has changed before the camera says more than what that does to scores.
        told = max(found, key=lambda each: (each.statistic not in _SYMPTOMS, each.beyond), default=None)
        return None if told is None else f"drift: {told.direction}"

    @property
    def words(self) -> str:
        """What has drifted, for people; empty where nothing has."""
        found = [f"{each.direction} ({each.strength})" for each in self.findings if each.found]
        return f"drift: {', '.join(found)}" if found else ""

    def payload(self) -> Payload:
        """Content of ``drift`` in ``health``, or of one zone in it."""
        return {
            "cause": self.cause,
            "remedy": REMEDY if self.cause else None,
            "blocks": self.blocks,
            "falseRejectRate": {"stated": self.stated_rate, "predicted": self.predicted_rate},
            "statistics": {each.statistic: each.payload() for each in self.findings},
            "off": dict(self.off),
        }


def drift_payload(reports: Mapping[str, DriftReport]) -> Payload | None:
    """Content of ``drift`` in ``health``; None where it is not watched.

    Args:
        reports: By zone; a single one may have no name.
    """
    if not reports or "" in reports:
        return reports[""].payload() if reports else None
    causes = [f"{report.cause} in {zone}" for zone, report in reports.items() if report.cause]
    return {
        "cause": causes[0] if causes else None,
        "remedy": REMEDY if causes else None,
        "zones": {zone: report.payload() for zone, report in reports.items()},
    }
