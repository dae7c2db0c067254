"""Combines the frames and zones of one part into one verdict and one step of the alerts, as pure functions.

In each zone, frames that cannot be trusted or scored are left out. If too few are left, the zone is NotDecidable, with
the most frequent cause; a frame that never came counts with the reason for that. A part is NotOK if a zone is, even if
others could not be decided; else NotDecidable if a zone is; else OK.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.alerts.defect import decide, evaluate
from agent.alerts.drift import drift_alert_step
from agent.frame_checks.camera_checks import alert_cause
from agent.inspection.score import PartInspection, ZoneVerdict
from agent.messages.records import Evaluation, ResultCode, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.alerts.defect import Decision, State
    from agent.inspection.score import FrameScores, ZoneScore

CombinationRule: TypeAlias = Literal["worst", "median", "best"]


def _too_late() -> ResultCode:
    return ResultCode.TOO_LATE


@dataclass(frozen=True, slots=True)
class FrameCombiner:
    """How many frames a part has, and which of them decides.

    Attributes:
        frames_per_part: Fewer where the part or the frames end earlier.
        rule: The decisive frame of a zone has the highest score, the middle one (of an even number the worse of both),
            or the lowest.
        least_decidable: Number of scores that a verdict needs; at most ``frames_per_part``.
        why_fewer: The reason why frames are missing, called when they are.
    """

    frames_per_part: int = 1
    rule: CombinationRule = "worst"
    least_decidable: int = 1
    why_fewer: Callable[[], ResultCode] = _too_late

    def __call__(self, frames: Sequence[FrameScores], state: State) -> PartInspection:
        """Decide about one part.

        Args:
            frames: The scored frames of the part, at least one, each with all zones in the same order.
            state: From the part before.
        """
        zones = tuple(self._verdict(scores) for scores in zip(*frames, strict=True))
        decisive = _decisive(zones)
        shown = decisive.frame_score
        result_id, now_ms = new_id(), shown.frame.captured_at_ms
        camera_fault = next((cause for zone in zones if (cause := alert_cause(zone.code)) is not None), None)
        decision = decide(shown.recipe.rules, state, decisive.score, result_id, now_ms, camera_fault)
        return PartInspection(
            result_id=result_id,
            part=shown.part,
            zones=zones,
            decisive=decisive,
            decision=_with_drift(decision, zones, result_id, now_ms),
            frames=len(frames),
            times_ms=_times_ms(next(scores for scores in frames if scores[0].frame.seq == shown.frame.seq)),
        )

    def _verdict(self, frame_scores: Sequence[ZoneScore]) -> ZoneVerdict:
        """The verdict on one zone."""
        usable = sorted((each for each in frame_scores if each.code is ResultCode.NONE), key=lambda each: each.score)
        if len(usable) >= self.least_decidable:
            index = {"best": 0, "median": len(usable) // 2, "worst": -1}[self.rule]
            decisive = usable[index]
            return ZoneVerdict(decisive, ResultCode.NONE, evaluate(decisive.score, decisive.recipe.rules.threshold))
        causes: Counter[ResultCode] = Counter(each.code for each in frame_scores if each.code is not ResultCode.NONE)
        missing = self.frames_per_part - len(frame_scores)
        if missing > 0:
            causes[self.why_fewer()] += missing
        ((code, _),) = causes.most_common(1)
        decisive = next((each for each in frame_scores if each.code is code), frame_scores[-1])
        return ZoneVerdict(decisive, code, evaluate(float("nan"), decisive.recipe.rules.threshold))


def _decisive(zones: Sequence[ZoneVerdict]) -> ZoneVerdict:
    """An undecided zone if no zone is NotOK; else the decided zone with the highest ratio of score to threshold."""
    undecided = [zone for zone in zones if zone.code is not ResultCode.NONE]
    is_bad = any(zone.verdict.evaluation is Evaluation.NOT_OK for zone in zones)
    if undecided and not is_bad:
        return undecided[0]
    return max((zone for zone in zones if zone.code is ResultCode.NONE), key=lambda zone: zone.ratio)


def _times_ms(scores: FrameScores) -> dict[str, float]:
    """Durations for one frame, whose zones were scored one after the other."""
    whole = {"waiting": scores[0].times_ms, "total": scores[-1].times_ms}
    return {
        stage: whole[stage][stage] if stage in whole else sum(score.times_ms[stage] for score in scores)
        for stage in scores[0].times_ms
    }


def _with_drift(decision: Decision, zones: Sequence[ZoneVerdict], result_id: str, now_ms: int) -> Decision:
    """The decision with a drift event, if there is one; what rejects all parts comes first."""
    found = [each for each in map(_drift_of, zones) if each is not None]
    cause, since_ms = max(found, key=lambda each: each[1] is not None, default=(None, None))
    event = drift_alert_step(decision.state.drift, cause, result_id, now_ms, since_ms)
    if event is None:
        return decision
    active = None if event.type == "end" else event
    return replace(decision, drift_event=event, state=replace(decision.state, drift=active))


def _drift_of(zone: ZoneVerdict) -> tuple[str, int | None] | None:
    """Notes the zone in the drift watch of its recipe; what has drifted, if anything, and since when all parts have."""
    score, drift = zone.frame_score, zone.frame_score.recipe.drift
    if drift is None:
        return None
    if score.prepared is not None and zone.inference is not None:
        drift.note(score.prepared, zone.inference, score.frame)
    cause = drift.report.cause_in(score.recipe.zone)
    return None if cause is None else (cause, drift.report.since_ms)
