"""What several frames of one part, and several zones of it, say together: one verdict, one step of the alerts; pure.

In each zone, frames that cannot be trusted or scored are left out. With fewer than so many others the zone is
NotDecidable, with the most frequent cause; a frame that never came counts with the reason for that. A part is NotOK if
a zone is, whatever is wrong with the others; else NotDecidable if a zone is; else OK.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.alerts.defect import decide, judge
from agent.alerts.drift import drift_alert_step
from agent.frame_checks.camera_checks import alert_cause
from agent.inspection.score import PartInspection, ZoneVerdict
from agent.messages.records import Evaluation, ResultCode, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.alerts.defect import Decision, State
    from agent.inspection.score import ZoneScore

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
        least_decidable: With fewer scores there is no verdict; at most ``frames_per_part``.
        why_fewer: Why the frames ended before there were enough, asked when they have.
    """

    frames_per_part: int = 1
    rule: CombinationRule = "worst"
    least_decidable: int = 1
    why_fewer: Callable[[], ResultCode] = _too_late

    def __call__(self, looks: Sequence[Sequence[ZoneScore]], state: State) -> PartInspection:
        """Judge one part.

        Args:
            looks: Of its frames, at least one, the views of all zones, in the same order.
            state: From the part before.
        """
        zones = tuple(self._combined(views) for views in zip(*looks, strict=True))
        decisive = _decisive(zones)
        result_id, shown = new_id(), decisive.view
        untrusted = next((cause for cause in (alert_cause(zone.code) for zone in zones) if cause is not None), None)
        decision = decide(shown.recipe.rules, state, decisive.score, result_id, shown.frame.captured_at_ms, untrusted)
        return PartInspection(
            result_id=result_id,
            part=shown.part,
            zones=zones,
            decisive=decisive,
            decision=_with_drift(decision, zones, result_id, shown.frame.captured_at_ms),
            frames=len(looks),
            times_ms=_times_ms(next(views for views in looks if views[0].frame.seq == shown.frame.seq)),
        )

    def _combined(self, views: Sequence[ZoneScore]) -> ZoneVerdict:
        scored = [view for view in views if view.code is ResultCode.NONE]
        if len(scored) >= self.least_decidable:
            return _judged(self._by_rule(scored), ResultCode.NONE)
        missing = self.frames_per_part - len(views)
        causes: Counter[ResultCode] = Counter(view.code for view in views if view.code is not ResultCode.NONE)
        if missing > 0:
            causes[self.why_fewer()] += missing
        ((code, _),) = causes.most_common(1)
        return _judged(next((view for view in views if view.code is code), views[-1]), code)

    def _by_rule(self, scored: Sequence[ZoneScore]) -> ZoneScore:
        place = {"best": 0, "median": len(scored) // 2, "worst": -1}[self.rule]
        return sorted(scored, key=lambda view: view.score)[place]


def _judged(view: ZoneScore, code: ResultCode) -> ZoneVerdict:
    score = view.score if code is ResultCode.NONE else float("nan")
    return ZoneVerdict(view, code, judge(score, view.recipe.rules.threshold))


def _decisive(zones: Sequence[ZoneVerdict]) -> ZoneVerdict:
    """The worst that was decided, by score over threshold, unless what was not decided goes before it."""
    undecided = [zone for zone in zones if zone.code is not ResultCode.NONE]
    is_bad = any(zone.verdict.evaluation is Evaluation.NOT_OK for zone in zones)
    if undecided and not is_bad:
        return undecided[0]
    return max((zone for zone in zones if zone.code is ResultCode.NONE), key=lambda zone: zone.ratio)


def _times_ms(views: Sequence[ZoneScore]) -> dict[str, float]:
    """Of one frame: its zones were looked at one after the other."""
    own = {"waiting": views[0], "total": views[-1]}
    return {
        stage: own[stage].times_ms[stage] if stage in own else sum(view.times_ms[stage] for view in views)
        for stage in views[0].times_ms
    }


def _with_drift(decision: Decision, zones: Sequence[ZoneVerdict], result_id: str, now_ms: int) -> Decision:
    """The same with the event of drift, if there is one; an exchanged recipe has seen none yet."""
    causes = [cause for cause in map(_drift_of, zones) if cause is not None]
    event = drift_alert_step(decision.state.drift, causes[0] if causes else None, result_id, now_ms)
    if event is None:
        return decision
    active = None if event.type == "end" else event
    return replace(decision, drift_event=event, state=replace(decision.state, drift=active))


def _drift_of(zone: ZoneVerdict) -> str | None:
    view = zone.view
    recipe = view.recipe
    if recipe.drift is None:
        return None
    if view.prepared is not None and zone.verdict.evaluation is not Evaluation.NOT_DECIDABLE:
        recipe.drift.sample(view.prepared, view.score, view.frame.captured_ns)
    cause = recipe.drift.report.cause
    return f"{cause} in {recipe.zone}" if cause and recipe.zone else cause
