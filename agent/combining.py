"""What several frames of one part say together: one score, one verdict, one step of the alerts; pure.

Frames that cannot be trusted or scored are left out. With fewer than so many others the part is NotDecidable, with the
most frequent cause; a frame that never came counts with the reason for that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.decision import decide
from agent.drift_alert import following
from agent.frame_checks import alert_cause
from agent.look import Seen
from agent.records import Evaluation, ResultCode, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.decision import Decision, State
    from agent.look import View

CombinationRule: TypeAlias = Literal["worst", "median", "best"]


def _too_late() -> ResultCode:
    return ResultCode.TOO_LATE


@dataclass(frozen=True, slots=True)
class Combining:
    """How many frames a part has, and which of them decides.

    Attributes:
        frames_per_part: Fewer where the part or the frames end earlier.
        rule: The decisive frame has the highest score, the middle one (of an even number the worse of both), or the
            lowest.
        least_decidable: With fewer scores there is no verdict; at most ``frames_per_part``.
        why_fewer: Why the frames ended before there were enough, asked when they have.
    """

    frames_per_part: int = 1
    rule: CombinationRule = "worst"
    least_decidable: int = 1
    why_fewer: Callable[[], ResultCode] = _too_late

    def __call__(self, views: Sequence[View], state: State) -> Seen:
        """Judge one part.

        Args:
            views: Of its frames, at least one.
            state: From the part before.
        """
        scored = [view for view in views if view.code is ResultCode.NONE]
        if len(scored) >= self.least_decidable:
            return _judged(self._decisive(scored), len(views), ResultCode.NONE, state)
        missing = self.frames_per_part - len(views)
        causes: Counter[ResultCode] = Counter(view.code for view in views if view.code is not ResultCode.NONE)
        if missing > 0:
            causes[self.why_fewer()] += missing
        ((code, _),) = causes.most_common(1)
        shown = next((view for view in views if view.code is code), views[-1])
        return _judged(shown, len(views), code, state)

    def _decisive(self, scored: Sequence[View]) -> View:
        place = {"best": 0, "median": len(scored) // 2, "worst": -1}[self.rule]
        return sorted(scored, key=lambda view: view.score)[place]


def _judged(view: View, frames: int, code: ResultCode, state: State) -> Seen:
    is_scored = code is ResultCode.NONE
    result_id = new_id()
    score = view.score if is_scored else float("nan")
    decision = decide(view.recipe.rules, state, score, result_id, view.frame.captured_at_ms, alert_cause(code))
    return Seen(
        result_id=result_id,
        frame=view.frame,
        part=view.part,
        recipe=view.recipe,
        region=view.region,
        inference=view.inference if is_scored else None,
        code=code,
        fault=view.fault if view.code is code else None,
        decision=_with_drift(decision, view, result_id),
        frames=frames,
        times_ms=view.times_ms,
        prepared=view.prepared,
    )


def _with_drift(decision: Decision, view: View, result_id: str) -> Decision:
    """The same with the event of drift, if there is one; an exchanged recipe has seen none yet."""
    watch = view.recipe.drift
    if watch is not None and view.prepared is not None and decision.verdict.evaluation is not Evaluation.NOT_DECIDABLE:
        watch.note(view.prepared, view.score, view.frame.captured_ns)
    cause = None if watch is None else watch.cause
    event = following(decision.state.drift, cause, result_id, view.frame.captured_at_ms)
    if event is None:
        return decision
    active = None if event.type == "end" else event
    return replace(decision, drift_event=event, state=replace(decision.state, drift=active))
