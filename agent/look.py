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
    from agent.decision import Rules, State
    from calibration.engine import Engine, Inference
    from calibration.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class Seen:
    """What was made of one frame.

    Attributes:
        inference: Score and map; None when the frame could not be scored.
        code: Why not; ``NONE`` when it could.
        fault: The same for people.
        decision: Verdict, alert, next state.
        times_ms: Duration of each stage so far.
    """

    result_id: str
    frame: Frame
    inference: Inference | None
    code: ResultCode
    fault: str | None
    decision: Decision
    times_ms: dict[str, float] = field(default_factory=dict)


def look(frame: Frame, preprocess: Preprocess, engine: Engine, rules: Rules, state: State) -> Seen:
    """Score and judge one frame; one that cannot be scored is NotDecidable, never OK."""
    started_ns = time.monotonic_ns()
    inference, code, fault = None, ResultCode.NONE, None
    prepared_ns = started_ns
    try:
        prepared = preprocess(frame.image)
        prepared_ns = time.monotonic_ns()
        inference = engine(prepared)
        if not math.isfinite(inference.score):
            code, fault = ResultCode.ENGINE_FAULT, f"{engine.backend} gave the score {inference.score}"
    except DatasetError as error:
        code, fault = ResultCode.FRAME_UNUSABLE, str(error)
    except EngineError as error:
        code, fault = ResultCode.ENGINE_FAULT, str(error)
    scored_ns = time.monotonic_ns()
    result_id = new_id()
    score = float("nan") if inference is None else inference.score
    decision = decide(rules, state, score, result_id, frame.captured_at_ms)
    times_ms = {
        "waiting": (started_ns - frame.captured_ns) / 1e6,
        "preprocess": (prepared_ns - started_ns) / 1e6,
        "inference": (scored_ns - prepared_ns) / 1e6,
        "total": (time.monotonic_ns() - frame.captured_ns) / 1e6,
    }
    return Seen(result_id, frame, inference, code, fault, decision, times_ms)
