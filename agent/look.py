"""One frame: prepared, scored, judged."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.decision import Decision, decide
from agent.frame_checks import alert_cause
from agent.records import ResultCode, new_id
from calibration.errors import DatasetError, EngineError

if TYPE_CHECKING:
    from agent.camera import Frame
    from agent.decision import State
    from agent.parts import Part
    from agent.recipe import Recipe
    from calibration.engine import Inference
    from calibration.preprocess import Image


@dataclass(frozen=True, slots=True)
class Seen:
    """What was made of one part in one frame.

    Attributes:
        recipe: What judged it.
        inference: Score and map; None when the frame could not be scored.
        code: Why not; ``NONE`` when it could.
        fault: The same for people.
        decision: Verdict, alert, next state.
        times_ms: Duration of each stage so far.
        prepared: Network input; None where the frame could not be prepared.
    """

    result_id: str
    frame: Frame
    part: Part
    recipe: Recipe
    inference: Inference | None
    code: ResultCode
    fault: str | None
    decision: Decision
    times_ms: dict[str, float] = field(default_factory=dict)
    prepared: Image | None = None


def look(frame: Frame, part: Part, recipe: Recipe, state: State) -> Seen:
    """Score and judge one frame; one that cannot be trusted or scored is NotDecidable, never OK.

    A frame that cannot be trusted is not scored: what the network makes of a blocked view says nothing of the part.
    """
    watch = _Stages()
    prepared: Image | None = None
    inference, code, fault = None, ResultCode.NONE, None
    try:
        distrust = None if recipe.checks is None else recipe.checks.of_frame(frame.image)
        watch.ends("checks")
        prepared = recipe.preprocess(frame.image)
        watch.ends("preprocess")
        if recipe.checks is not None:
            distrust = distrust or recipe.checks.of_input(prepared, frame.image)
            watch.ends("checks")
        if distrust is None:
            inference = recipe.engine(prepared)
            if not math.isfinite(inference.score):
                code, fault = ResultCode.ENGINE_FAULT, f"{recipe.engine.backend} gave the score {inference.score}"
        else:
            code, fault = distrust
    except DatasetError as error:
        code, fault = ResultCode.FRAME_UNUSABLE, str(error)
    except EngineError as error:
        code, fault = ResultCode.ENGINE_FAULT, str(error)
    watch.ends("inference")
    result_id = new_id()
    score = float("nan") if inference is None else inference.score
    decision = decide(recipe.rules, state, score, result_id, frame.captured_at_ms, alert_cause(code))
    times_ms = watch.times_ms(frame.captured_ns)
    return Seen(result_id, frame, part, recipe, inference, code, fault, decision, times_ms, prepared)


class _Stages:
    """How long each stage took; one that did not happen took no time."""

    def __init__(self) -> None:
        self._began_ns = self._last_ns = time.monotonic_ns()
        self._spent_ns = {"checks": 0, "preprocess": 0, "inference": 0}

    def ends(self, stage: str) -> None:
        now_ns = time.monotonic_ns()
        self._spent_ns[stage] += now_ns - self._last_ns
        self._last_ns = now_ns

    def times_ms(self, captured_ns: int) -> dict[str, float]:
        return {
            "waiting": (self._began_ns - captured_ns) / 1e6,
            **{stage: spent_ns / 1e6 for stage, spent_ns in self._spent_ns.items()},
            "total": (time.monotonic_ns() - captured_ns) / 1e6,
        }
