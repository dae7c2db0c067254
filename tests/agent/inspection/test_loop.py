from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.alerts.defect import Rules, State
from agent.camera import Frame
from agent.inspection.combine import FrameCombiner
from agent.inspection.fault_log import ENDED_AFTER_S, FaultLog
from agent.inspection.loop import inspect
from agent.inspection.score import PartInspection
from agent.inspection.score import score_frame as look_at
from agent.messages.records import Evaluation, ResultCode
from agent.trigger.part import Part
from agent.zones.recipe import Recipe
from calibration.engine.contract import Inference
from calibration.errors import EngineError
from calibration.imaging.preprocess import Preprocess, Region
from tests.support.fakes import FakeCamera, FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calibration.imaging.preprocess import Image

RULES = Rules(threshold=100.0)
PREPROCESS = Preprocess(4, 4, Region(2, 2, 4, 4))
FITTING, TOO_SMALL = (8, 8), (3, 3)


def frame(seq: int, size: tuple[int, int] = FITTING) -> Frame:
    return Frame(seq, np.zeros((*size, 3), np.uint8), captured_at_ms=1000 + seq, captured_ns=seq)


@dataclass
class ListedCamera(FakeCamera):
    """Gives the listed frames, and notes when it is asked for the next."""

    frames: Sequence[Frame | None]
    events: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Frame | None]:
        for one in self.frames:
            if one is not None:
                self.captured += 1
                self.events.append(f"frame {one.seq}")
            yield one


class ScriptedEngine(FakeEngine):
    """Scores what the script says; a text is why it fails."""

    def __init__(self, *script: float | str) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._script = list(script)

    def __call__(self, frame: Image) -> Inference:
        self.shapes.append(frame.shape)
        score = self._script.pop(0)
        if isinstance(score, str):
            raise EngineError(what=score, remedy="mend it")
        return Inference(score, np.full((2, 2), score, np.float32))


class EveryFrame:
    """Each frame is a part; those of the listed numbers are not."""

    def __init__(self, *empty: int) -> None:
        self.dropped: Counter[str] = Counter()
        self._empty = empty

    def withdraw(self, _: list[Part]) -> list[Part]:
        return []

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        if current is not None:
            return current
        return None if frame.seq in self._empty else Part(f"part {frame.seq}", frame.captured_at_ms, frame.captured_ns)


def look(frame: Frame, preprocess: Preprocess, engine: ScriptedEngine, rules: Rules, state: State) -> PartInspection:
    return FrameCombiner()([[look_at(frame, Part(None, 0, 0), Recipe(preprocess, engine, rules, (2, 2)))]], state)


def run(frames: Sequence[Frame], *script: float | str) -> tuple[list[PartInspection], State]:
    """What the loop records of these frames, and its last state."""
    recorded: list[PartInspection] = []
    recipe = Recipe(PREPROCESS, ScriptedEngine(*script), RULES, (2, 2))
    state = inspect(ListedCamera(frames), EveryFrame(), lambda: (recipe,), recorded.append, lambda _: None)
    return recorded, state


def evaluations(seen: Sequence[PartInspection]) -> list[Evaluation]:
    return [one.decision.verdict.evaluation for one in seen]


def test_the_engine_gets_the_region_at_the_size_of_the_network() -> None:
    engine = ScriptedEngine(1.0)
    seen = look(frame(0, (50, 60)), Preprocess(6, 5, Region(1, 2, 30, 20)), engine, RULES, State())
    assert engine.shapes == [(6, 5, 3)]
    assert seen.inference is not None
    assert (seen.inference.score, seen.code, seen.fault) == (1.0, ResultCode.NONE, None)


def test_a_frame_that_the_region_does_not_fit_is_not_decidable_and_never_reaches_the_engine() -> None:
    engine = ScriptedEngine()
    seen = look(frame(0, TOO_SMALL), PREPROCESS, engine, RULES, State())
    assert engine.shapes == []
    assert seen.inference is None
    assert seen.code is ResultCode.FRAME_UNUSABLE
    assert seen.fault is not None
    assert "3x3 pixels" in seen.fault
    assert seen.decision.verdict.evaluation is Evaluation.NOT_DECIDABLE
    assert set(seen.times_ms) == {"waiting", "checks", "preprocess", "inference", "total"}
    assert all(ms >= 0 for ms in seen.times_ms.values())


def test_a_frame_that_the_engine_cannot_score_is_not_decidable() -> None:
    seen = look(frame(0), PREPROCESS, ScriptedEngine("out of memory"), RULES, State())
    assert seen.inference is None
    assert seen.code is ResultCode.ENGINE_FAULT
    assert seen.fault is not None
    assert "out of memory" in seen.fault
    assert seen.decision.verdict.evaluation is Evaluation.NOT_DECIDABLE


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_engine_fault_and_not_decidable(score: float) -> None:
    seen = look(frame(0), PREPROCESS, ScriptedEngine(score), RULES, State())
    assert seen.decision.verdict.evaluation is Evaluation.NOT_DECIDABLE
    assert seen.code is ResultCode.ENGINE_FAULT
    assert seen.fault is not None
    assert str(score) in seen.fault


@given(
    st.lists(
        st.one_of(st.floats(width=32), st.just("fault"), st.just(TOO_SMALL)),
        max_size=30,
    )
)
def test_every_frame_gets_one_verdict_and_ok_needs_a_score_within_the_threshold(
    script: list[float | str | tuple[int, int]],
) -> None:
    frames = [frame(seq, step if isinstance(step, tuple) else FITTING) for seq, step in enumerate(script)]
    seen, _ = run(frames, *(step for step in script if not isinstance(step, tuple)))
    assert [one.frame.seq for one in seen] == list(range(len(script)))
    assert len({one.result_id for one in seen}) == len(script)
    for one, step in zip(seen, script, strict=True):
        scored = isinstance(step, float) and math.isfinite(step)
        expected = Evaluation.NOT_DECIDABLE
        if isinstance(step, float) and scored:
            expected = Evaluation.NOT_OK if step > RULES.threshold else Evaluation.OK
        assert one.decision.verdict.evaluation is expected
        assert (one.code is ResultCode.NONE) == scored == (one.fault is None)


def test_an_alert_is_remembered_from_one_frame_to_the_next() -> None:
    seen, state = run([frame(seq) for seq in range(6)], 1.0, 500.0, 400.0, 1.0, 1.0, 500.0)
    events = [one.decision.event and one.decision.event.type for one in seen]
    assert events == [None, "new", None, None, None, None]
    assert state.alert is not None
    assert state.alert.alert_id == f"defect-{seen[1].result_id}"


def test_frames_that_cannot_be_inspected_are_reported_once_and_once_when_they_can_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent.inspection.fault_log")
    frames = [frame(0), frame(1, TOO_SMALL), frame(2, TOO_SMALL), frame(3), frame(4)]
    frames += [replace(frame(seq), captured_ns=round(ENDED_AFTER_S * 1e9) + seq) for seq in (5, 6)]
    seen, _ = run(frames, 1.0, "broken", 1.0, 1.0, math.nan)
    decidable = [evaluation is not Evaluation.NOT_DECIDABLE for evaluation in evaluations(seen)]
    assert decidable == [True, False, False, False, True, True, False]
    messages = [(record.levelname, record.message.splitlines()[0]) for record in caplog.records]
    assert [level for level, _ in messages] == ["ERROR", "INFO", "ERROR"]
    assert "3x3 pixels" in messages[0][1]
    assert messages[1][1] == "frames can be inspected again"
    assert "nan" in messages[2][1]


def test_a_camera_that_damages_every_third_frame_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.inspection.fault_log")
    faults = FaultLog()
    for tenth in range(3000):
        faults.note(None if tenth % 3 else f"the frame is damaged: {tenth}", tenth * 100_000_000)
    faults.note(None, 310 * 1_000_000_000)
    assert [record.message for record in caplog.records] == [
        "frames cannot be inspected: the frame is damaged: 0",
        "frames can be inspected again",
    ]


@pytest.mark.parametrize(("good", "said"), [(None, 1), (0, 0), (18, 0), (20, 1)])
def test_that_no_part_could_be_inspected_since_the_start_is_logged_once_with_what_to_do(
    caplog: pytest.LogCaptureFixture, good: int | None, said: int
) -> None:
    faults = FaultLog()
    for number in range(50):
        faults.note(None if number == good else "the view is blocked", number)
    advice = [text for text in caplog.messages if text.startswith("none of the first 20 parts could be inspected: ")]
    assert len(advice) == said
    assert all("`shiftwatch-agent doctor`" in text for text in advice)


def test_a_damaged_frame_is_not_decidable_and_never_scored() -> None:
    seen, _ = run([frame(0), replace(frame(1), is_damaged=True), frame(2)], 1.0, 1.0)
    assert evaluations(seen) == [Evaluation.OK, Evaluation.NOT_DECIDABLE, Evaluation.OK]
    assert seen[1].code is ResultCode.DAMAGED
    assert (seen[1].fault or "").startswith("the frame is damaged: ")
    assert seen[1].lasting_fault == "the frame is damaged"


def test_a_frame_is_recorded_before_the_heartbeat_and_the_next_frame_comes_after_it() -> None:
    camera = ListedCamera([frame(0), frame(1)])
    recipe = Recipe(PREPROCESS, ScriptedEngine(1.0, 1.0), RULES, (2, 2))
    inspect(
        camera,
        EveryFrame(),
        lambda: (recipe,),
        lambda seen: camera.events.append(f"record {seen.frame.seq}"),
        lambda seen: camera.events.append(f"heartbeat {seen.frame.seq}" if seen else "nothing"),
    )
    assert camera.events == ["frame 0", "record 0", "heartbeat 0", "frame 1", "record 1", "heartbeat 1"]


def test_a_record_that_fails_starves_the_watchdog() -> None:
    class DiskError(Exception):
        pass

    def record(_: PartInspection) -> None:
        raise DiskError

    beats: list[PartInspection | None] = []
    recipe = Recipe(PREPROCESS, ScriptedEngine(1.0), RULES, (2, 2))
    with pytest.raises(DiskError):
        inspect(ListedCamera([frame(0)]), EveryFrame(), lambda: (recipe,), record, beats.append)
    assert not beats


def test_frames_without_a_part_are_not_checked_but_the_heart_beats() -> None:
    recorded: list[PartInspection] = []
    beats: list[PartInspection | None] = []
    recipe = Recipe(PREPROCESS, ScriptedEngine(1.0, 2.0), RULES, (2, 2))
    camera = ListedCamera([frame(0), None, frame(1), frame(2)])
    inspect(camera, EveryFrame(1), lambda: (recipe,), recorded.append, beats.append)
    assert [one.part.part_id for one in recorded] == ["part 0", "part 2"]
    assert beats == [recorded[0], None, None, recorded[1]]


def test_another_recipe_judges_from_the_next_frame_on() -> None:
    recorded: list[PartInspection] = []
    recipes = [Recipe(PREPROCESS, ScriptedEngine(50.0), Rules(threshold=limit), (2, 2)) for limit in (100.0, 10.0)]
    inspect(
        ListedCamera([frame(0), frame(1)]),
        EveryFrame(),
        lambda: [recipes[len(recorded)]],
        recorded.append,
        lambda _: None,
    )
    assert evaluations(recorded) == [Evaluation.OK, Evaluation.NOT_OK]
    assert [one.recipe for one in recorded] == recipes


def test_the_codes_are_those_of_the_contract() -> None:
    assert [int(code) for code in ResultCode] == list(range(17))
    assert [code.name for code in ResultCode] == [
        "NONE",
        "FRAME_UNUSABLE",
        "ENGINE_FAULT",
        "TOO_LATE",
        "CAMERA_LOST",
        "PAUSED",
        "DARK",
        "OVER_EXPOSED",
        "BLOCKED",
        "BLURRED",
        "FROZEN",
        "MOVED",
        "DAMAGED",
        "NOT_TAUGHT",
        "TOUCHING",
        "CUT_OFF",
        "UNCLEAR",
    ]


def test_without_frames_nothing_is_recorded_and_no_alert_is_active() -> None:
    assert run([]) == ([], State())
