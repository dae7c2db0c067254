"""One frame: prepared, scored, judged."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.decision import Decision, decide
from agent.records import ResultCode, new_id
from calibration.errors import DatasetError, EngineError

if TYPE_CHECKING:
    from agent.camera import Frame
    from agent.decision import State
    from agent.parts import Part
    from agent.recipe import Recipe
    from calibration.engine import Inference


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


def look(frame: Frame, part: Part, recipe: Recipe, state: State) -> Seen:
    """Score and judge one frame; one that cannot be scored is NotDecidable, never OK."""
    started_ns = time.monotonic_ns()
    inference, code, fault = None, ResultCode.NONE, None
    prepared_ns = started_ns
    try:
        prepared = recipe.preprocess(frame.image)
        prepared_ns = time.monotonic_ns()
        inference = recipe.engine(prepared)
        if not math.isfinite(inference.score):
            code, fault = ResultCode.ENGINE_FAULT, f"{recipe.engine.backend} gave the score {inference.score}"
    except DatasetError as error:
        code, fault = ResultCode.FRAME_UNUSABLE, str(error)
    except EngineError as error:
        code, fault = ResultCode.ENGINE_FAULT, str(error)
    scored_ns = time.monotonic_ns()
    result_id = new_id()
    score = float("nan") if inference is None else inference.score
    decision = decide(recipe.rules, state, score, result_id, frame.captured_at_ms)
    times_ms = {
        "waiting": (started_ns - frame.captured_ns) / 1e6,
        "preprocess": (prepared_ns - started_ns) / 1e6,
        "inference": (scored_ns - prepared_ns) / 1e6,
        "total": (time.monotonic_ns() - frame.captured_ns) / 1e6,
    }
    return Seen(result_id, frame, part, recipe, inference, code, fault, decision, times_ms)
