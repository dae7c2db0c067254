"""Several frames of one part: what they say together, and that none of them is lost."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.alerts.defect import Rules, State
from agent.camera import Frame
from agent.inspection.combine import FrameCombiner
from agent.inspection.loop import inspect
from agent.inspection.score import ZoneScore
from agent.messages.records import Evaluation, ResultCode
from agent.metrics.loop_metrics import LoopMetrics
from agent.trigger.motion import OnMotion
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Handshake
from agent.trigger.trigger import EveryFrame, OnCommand, UnlessPaused
from agent.zones.recipe import Recipe
from calibration.engine.contract import Inference
from calibration.errors import EngineError
from calibration.imaging.preprocess import Preprocess
from tests.support.fakes import FakeCamera, FakeEngine

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence

    from agent.camera import CameraState
    from agent.inspection.combine import CombinationRule
    from agent.inspection.score import PartInspection
    from agent.trigger.trigger import Trigger
    from calibration.imaging.preprocess import Image

RULES = Rules(threshold=100.0)
PART = Part("A", 0, 0)
UNSCORED = (ResultCode.DARK, ResultCode.BLURRED, ResultCode.ENGINE_FAULT)


class LookingEngine(FakeEngine):
    """Scores a frame by its first pixel; 255 is a fault."""

    def __call__(self, frame: Image) -> Inference:
        if frame[0, 0, 0] == 255:
            raise EngineError(what="broken", remedy="mend it")
        return Inference(float(frame[0, 0, 0]), np.zeros((2, 2), np.float32))


RECIPE = Recipe(Preprocess(8, 8), LookingEngine(), RULES, (2, 2))


def frame(seq: int, grey: int = 0, captured_ns: int = 0) -> Frame:
    return Frame(seq, np.full((8, 8, 3), grey, np.uint8), 1000 + seq, captured_ns)


def views(*scores: float | ResultCode) -> list[ZoneScore]:
    made = []
    for seq, score in enumerate(scores):
        code = score if isinstance(score, ResultCode) else ResultCode.NONE
        inference = None if isinstance(score, ResultCode) else Inference(score, np.zeros((2, 2), np.float32))
        made.append(
            ZoneScore(
                frame(seq), PART, RECIPE, None, None, inference, code, "why" if code else None, {"inference": 1.0}
            )
        )
    return made


def frames_of(*zones: list[ZoneScore]) -> list[tuple[ZoneScore, ...]]:
    """Frame by frame."""
    return list(zip(*zones, strict=True))


@pytest.mark.parametrize(("rule", "decisive"), [("worst", 1), ("median", 3), ("best", 2)])
def test_the_result_is_that_of_the_decisive_frame(rule: CombinationRule, decisive: int) -> None:
    scores = (50.0, 150.0, 20.0, 90.0)
    seen = FrameCombiner(4, rule)(frames_of(views(*scores)), State())
    assert (seen.frame.seq, seen.frames, seen.code, seen.fault) == (decisive, 4, ResultCode.NONE, None)
    assert seen.inference is not None
    assert seen.inference.score == scores[decisive]
    expected = Evaluation.NOT_OK if scores[decisive] > 100 else Evaluation.OK
    assert seen.decision.verdict.evaluation is expected


@given(
    st.lists(st.one_of(st.floats(0, 300), st.sampled_from(UNSCORED)), min_size=1, max_size=7),
    st.sampled_from(["worst", "median", "best"]),
    st.integers(0, 4),
    st.integers(1, 7),
)
def test_a_part_is_what_the_rule_says_of_the_frames_that_could_be_scored(
    scores: list[float | ResultCode], rule: CombinationRule, missing: int, least: int
) -> None:
    """Against the rules as Python's own library has them."""
    count = len(scores) + missing
    combine = FrameCombiner(count, rule, min(least, count), lambda: ResultCode.CAMERA_LOST)
    seen = combine(frames_of(views(*scores)), State())
    scored = [score for score in scores if not isinstance(score, ResultCode)]
    assert seen.frames == len(scores)
    if len(scored) >= min(least, count):
        rules: dict[str, Callable[[list[float]], float]] = {
            "worst": max,
            "median": statistics.median_high,
            "best": min,
        }
        of = rules[rule]
        assert seen.inference is not None
        assert seen.inference.score == of(scored) == scores[seen.frame.seq]
        assert seen.code is ResultCode.NONE
        assert seen.decision.verdict.evaluation is (Evaluation.NOT_OK if of(scored) > 100 else Evaluation.OK)
    else:
        causes = [score for score in scores if isinstance(score, ResultCode)] + [ResultCode.CAMERA_LOST] * missing
        assert seen.code is statistics.mode(causes)
        assert seen.inference is None
        assert seen.decision.verdict.evaluation is Evaluation.NOT_DECIDABLE


def test_a_part_is_one_step_of_the_alerts() -> None:
    recipe = replace(RECIPE, rules=Rules(threshold=100.0, raise_after=2))
    bad = [replace(view, recipe=recipe) for view in views(150.0, 150.0, 150.0)]
    first = FrameCombiner(3)(frames_of(bad), State())
    assert first.decision.event is None
    second = FrameCombiner(3)(frames_of(bad), first.decision.state)
    assert second.decision.event is not None
    assert second.decision.event.type == "new"


def test_dark_frames_that_outnumber_the_others_are_a_fault_of_the_camera() -> None:
    seen = FrameCombiner(3, "worst", 2)(frames_of(views(ResultCode.DARK, 20.0, ResultCode.DARK)), State())
    assert (seen.code, seen.frame.seq, seen.fault) == (ResultCode.DARK, 0, "why")
    assert seen.decision.state.camera.untrusted_since_ms == 1000
    assert math.isnan(seen.decision.verdict.margin or math.nan)


@dataclass
class ScriptedCamera(FakeCamera):
    """Does what the script says, a word at a time; a number is a frame of that grey."""

    script: Sequence[str | int]
    trigger: OnCommand | None = None
    captured: int = 0
    paused: bool = False
    state: CameraState = "running"
    asked: int = 0

    def __iter__(self) -> Iterator[Frame | None]:
        for word in self.script:
            if isinstance(word, int):
                self.captured += 1
                self.state = "running"
                yield frame(self.captured - 1, word, time.monotonic_ns())
            elif word == "part" and self.trigger is not None:
                self.trigger.ask(str(self.asked))
                self.asked += 1
            elif word in {"lost", "nothing"}:
                self.state = "lost" if word == "lost" else self.state
                yield None
            elif word == "pause":
                self.paused = not self.paused


@dataclass
class Run:
    seen: list[PartInspection]
    camera: ScriptedCamera
    dropped: Counter[str]
    metrics: LoopMetrics


def run(script: Sequence[str | int], combine: FrameCombiner, kind: str = "every_frame", every: int = 1) -> Run:
    handshake = Handshake(60_000, lambda: ResultCode.TOO_LATE)
    triggers: dict[str, Trigger] = {
        "every_frame": EveryFrame(handshake, every),
        "command": OnCommand(handshake, 0),
        "motion": OnMotion(handshake, lambda: (RECIPE,), 0, 60_000),
    }
    trigger = triggers[kind]
    camera = ScriptedCamera(script, trigger if isinstance(trigger, OnCommand) else None)
    watched = UnlessPaused(trigger, lambda: camera.paused)
    why = lambda: ResultCode.PAUSED if camera.paused else ResultCode.CAMERA_LOST  # noqa: E731
    seen: list[PartInspection] = []
    metrics = LoopMetrics()

    def heartbeat(one: PartInspection | None) -> None:
        if one is not None:
            metrics.note({}, one.decision.verdict.evaluation, None, one.frames)

    inspect(camera, watched, lambda: (RECIPE,), seen.append, heartbeat, replace(combine, why_fewer=why))
    return Run(seen, camera, watched.dropped, metrics)


def shown(run: Run) -> list[tuple[str | None, int, ResultCode]]:
    return [(one.part.part_id, one.frames, one.code) for one in run.seen]


def test_frames_are_taken_in_groups() -> None:
    done = run([10, 120, 30, 40, 50, 60], FrameCombiner(3))
    assert [(one.frame.seq, one.frames, one.inference and one.inference.score) for one in done.seen] == [
        (1, 3, 120.0),
        (5, 3, 60.0),
    ]
    assert done.metrics.combined == 4


def test_each_nth_frame_is_a_part_and_the_others_are_counted() -> None:
    done = run([1, 2, 3, 4, 5, 6, 7], FrameCombiner(), every=3)
    assert [one.frame.seq for one in done.seen] == [0, 3, 6]
    assert done.dropped == {"skipped": 4}
    both = run([1, 2, 3, 4, 5, 6, 7], FrameCombiner(2), every=3)
    assert [(one.frame.seq, one.frames) for one in both.seen] == [(1, 2), (4, 2), (6, 1)]
    assert both.dropped == {"skipped": 2}


def test_a_named_part_has_the_next_frames() -> None:
    done = run([1, "part", 2, 3, 4, 5, 6], FrameCombiner(3), "command")
    assert [(one.part.part_id, one.frame.seq, one.frames) for one in done.seen] == [("0", 3, 3)]
    assert done.dropped == {"untriggered": 3}


def test_the_next_part_ends_the_frames_of_the_one_before() -> None:
    done = run(["part", 1, 2, "part", 120, 3, 4], FrameCombiner(3, "worst", 2), "command")
    assert shown(done) == [("0", 2, ResultCode.NONE), ("1", 3, ResultCode.NONE)]
    assert [one.decision.verdict.evaluation for one in done.seen] == [Evaluation.OK, Evaluation.NOT_OK]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (["part", 1, "lost", 2, 3], ResultCode.CAMERA_LOST),
        (["part", 1, "pause", 2, 3], ResultCode.PAUSED),
        (["part", 1], ResultCode.CAMERA_LOST),
    ],
)
def test_a_part_that_is_interrupted_has_a_result_that_says_why(script: list[str | int], code: ResultCode) -> None:
    assert shown(run(script, FrameCombiner(3, "worst", 2), "command")) == [("0", 1, code)]


def test_a_part_that_is_interrupted_late_has_its_verdict() -> None:
    assert shown(run(["part", 1, 2, "lost"], FrameCombiner(3, "worst", 2), "command")) == [("0", 2, ResultCode.NONE)]


def test_a_slow_camera_interrupts_nothing() -> None:
    script: list[str | int] = ["part", 1, "nothing", 2, "nothing", "nothing", 3]
    assert shown(run(script, FrameCombiner(3), "command")) == [("0", 3, ResultCode.NONE)]


def test_recipes_are_swapped_between_two_parts_only() -> None:
    recipes = iter(replace(RECIPE, rules=Rules(threshold=limit)) for limit in (1.0, 2.0, 3.0, 4.0))
    handshake = Handshake(60_000, lambda: ResultCode.TOO_LATE)
    camera = ScriptedCamera([10, 10, 10, 10])
    seen: list[PartInspection] = []
    inspect(camera, EveryFrame(handshake), lambda: (next(recipes),), seen.append, lambda _: None, FrameCombiner(2))
    assert [one.recipe.rules.threshold for one in seen] == [1.0, 2.0]


words = st.lists(
    st.one_of(st.sampled_from([0, 0, 50, 50, 120, 255]), st.sampled_from(["part", "part", "lost", "nothing", "pause"])),
    max_size=40,
)


@settings(deadline=None)
@example(["part", 50, "part", 50, 50, "lost", "part", 255], "command", 2, 2, 1)
@example([0, 120, 120, 120, 0, 0], "motion", 2, 2, 1)
@given(
    words,
    st.sampled_from(["every_frame", "command", "motion"]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_every_frame_is_in_one_result_or_dropped_for_a_reason_and_no_part_is_lost(
    script: list[str | int], kind: str, count: int, least: int, every: int
) -> None:
    done = run(script, FrameCombiner(count, "worst", min(least, count)), kind, every)
    metrics = done.metrics
    assert metrics.results == len(done.seen)
    assert done.camera.captured == metrics.results + metrics.combined + done.dropped.total()
    assert done.camera.captured == sum(one.frames for one in done.seen) + done.dropped.total()
    assert all(1 <= one.frames <= count for one in done.seen)
    assert all(before.frame.seq < after.frame.seq for before, after in pairwise(done.seen))
    if kind == "command":
        assert [one.part.part_id for one in done.seen] == [str(number) for number in range(parts_with_a_frame(script))]


def parts_with_a_frame(script: list[str | int]) -> int:
    waiting, having, paused = 0, 0, False
    for word in script:
        if word == "pause":
            paused = not paused
        elif word == "part":
            waiting += 1
        elif isinstance(word, int) and waiting and not paused:
            waiting, having = waiting - 1, having + 1
    return having
