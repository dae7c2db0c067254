from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.camera import Frame
from agent.messages.records import Evaluation, ResultCode
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Answer, Handshake
from agent.trigger.trigger import EveryFrame, OnCommand, UnlessPaused

if TYPE_CHECKING:
    import pytest

DEADLINE_MS = 100
MS = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 5_000 * MS

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, duration_ms: float) -> None:
        self.now_ns += int(duration_ms * MS)


def handshake_at(clock: Clock, code: ResultCode = ResultCode.TOO_LATE) -> Handshake:
    return Handshake(DEADLINE_MS, lambda: code, clock)


def a_part(clock: Clock, part_id: str | None = "A") -> Part:
    return Part(part_id, 1_700_000_000_000, clock.now_ns)


def ok(part: Part, seq: int = 7) -> Answer:
    return Answer(part, seq, Evaluation.OK, ResultCode.NONE, 1.5)


def frame(captured_ns: int, seq: int = 0) -> Frame:
    return Frame(seq, np.zeros((2, 2, 3), np.uint8), 1_700_000_000_000, captured_ns)


def test_a_part_answered_in_time_is_valid_and_says_how_old_it_is() -> None:
    clock = Clock()
    handshake = handshake_at(clock)
    part = a_part(clock)
    handshake.expect(part)
    clock.pass_ms(42.5)
    assert handshake.answer(ok(part))
    assert handshake.take() == [
        {
            "seq": 7,
            "partId": "A",
            "resultEvaluation": 1,
            "resultCode": 0,
            "score": 1.5,
            "valid": True,
            "ageMs": 42,
            "speed": None,
        }
    ]
    clock.pass_ms(1000)
    assert handshake.overdue() == []
    assert handshake.take() == []


def test_a_part_without_a_verdict_in_time_is_not_valid_with_the_reason_and_a_late_verdict_is_not_said() -> None:
    clock = Clock()
    handshake = handshake_at(clock, ResultCode.CAMERA_LOST)
    part = a_part(clock)
    handshake.expect(part)
    assert handshake.due_at_s == (part.asked_ns + DEADLINE_MS * MS) / 1e9
    clock.pass_ms(DEADLINE_MS)
    assert handshake.is_late(part)
    assert not handshake.answer(ok(part))
    assert handshake.overdue() == [part]
    (said,) = handshake.take()
    assert said == {
        "seq": None,
        "partId": "A",
        "resultEvaluation": 3,
        "resultCode": 4,
        "score": None,
        "valid": False,
        "ageMs": DEADLINE_MS,
        "speed": None,
    }
    assert not handshake.answer(ok(part))
    assert handshake.take() == []
    assert handshake.dropped == {"plc_too_late": 1}
    assert math.isinf(handshake.due_at_s)


def test_that_no_verdict_comes_in_time_is_logged_once_with_its_figures_and_once_that_they_do_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    handshake = Handshake(DEADLINE_MS, lambda: ResultCode.TOO_LATE, clock, waits="trigger.delay_ms 60")

    def inspect(took_ms: float) -> None:
        part = handshake.expect(a_part(clock))
        clock.pass_ms(min(took_ms, DEADLINE_MS))
        handshake.overdue()
        clock.pass_ms(max(0, took_ms - DEADLINE_MS))
        handshake.answer(ok(part))

    caplog.set_level(logging.INFO, "agent.trigger.plc_handshake")
    for took_ms in (120, 140, 199, 40, 120, 120, 131, 140):
        inspect(took_ms)
    assert caplog.messages == [], "five in a row"
    for took_ms in (150, 160, 40, 50):
        inspect(took_ms)
    late, again = caplog.messages
    assert late.startswith(
        "5 parts in a row had no verdict within plc.deadline_ms 100, and the controller got `valid: false`: "
        "their verdicts came 120 to 140 ms after the trigger or first frame (trigger.delay_ms 60); "
    )
    assert again == "verdicts come within plc.deadline_ms again"


def test_parts_without_a_verdict_for_another_reason_are_not_called_late(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    handshake = handshake_at(clock, ResultCode.PAUSED)
    for _ in range(6):
        handshake.expect(a_part(clock))
    clock.pass_ms(DEADLINE_MS)
    assert len(handshake.overdue()) == 6
    assert caplog.messages == []


def test_a_verdict_that_could_not_be_made_is_not_valid() -> None:
    clock = Clock()
    handshake = handshake_at(clock)
    part = a_part(clock)
    handshake.expect(part)
    handshake.answer(Answer(part, 3, Evaluation.NOT_DECIDABLE, ResultCode.ENGINE_FAULT, math.nan))
    (said,) = handshake.take()
    assert (said["valid"], said["resultCode"], said["score"]) == (False, 2, None)


def test_what_was_not_said_before_the_line_came_back_is_thrown_away_and_counted() -> None:
    clock = Clock()
    handshake = handshake_at(clock)
    for number in range(1005):
        part = a_part(clock, str(number))
        clock.pass_ms(1)
        handshake.expect(part)
        handshake.answer(ok(part))
    handshake.discard()
    assert handshake.take() == []
    assert handshake.dropped == {"plc_not_connected": 1005}


def test_a_line_that_does_not_trigger_receives_once_a_second_that_nothing_can_be_seen() -> None:
    clock = Clock()
    handshake = handshake_at(clock)
    said: list[dict[str, Any]] = []
    for _ in range(30):
        handshake.report_no_view(ResultCode.CAMERA_LOST, 1)
        said += handshake.take()
        clock.pass_ms(100)
    assert [(one["valid"], one["resultCode"], one["partId"]) for one in said] == [(False, 4, None)] * 3


def test_the_first_frame_at_or_after_the_trigger_and_its_delay_shows_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("agent.trigger.part.time.monotonic_ns", clock)
    parts = OnCommand(handshake_at(clock), delay_ms=20)
    before = frame(clock.now_ns - 1)
    assert parts(before) is None
    assert parts.ask("A")
    assert parts.ask("B")
    assert parts(before) is None
    assert parts(frame(clock.now_ns + 20 * MS - 1)) is None
    shown = [parts(frame(clock.now_ns + (20 + number) * MS)) for number in range(3)]
    assert [part and part.part_id for part in shown] == ["A", "B", None]
    assert parts.dropped == {"untriggered": 4}


def test_a_part_that_is_given_up_before_its_frame_came_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("agent.trigger.part.time.monotonic_ns", clock)
    handshake = handshake_at(clock)
    parts = OnCommand(handshake, delay_ms=0)
    parts.ask("seen")
    parts.ask("missed")
    seen = parts(frame(clock.now_ns))
    assert seen is not None
    clock.pass_ms(DEADLINE_MS)
    given_up = handshake.overdue()
    assert [part.part_id for part in given_up] == ["seen", "missed"]
    assert [part.part_id for part in parts.withdraw(given_up)] == ["missed"]
    assert parts(frame(clock.now_ns)) is None


def test_the_frames_of_a_part_end_where_the_next_part_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("agent.trigger.part.time.monotonic_ns", clock)
    parts = OnCommand(handshake_at(clock), delay_ms=20)
    parts.ask("A")
    clock.pass_ms(20)
    first = parts(frame(clock.now_ns))
    assert first is not None
    parts.ask("B")
    assert parts(frame(clock.now_ns + 19 * MS), first) is first
    second = parts(frame(clock.now_ns + 20 * MS), first)
    assert second is not None
    assert (first.part_id, second.part_id) == ("A", "B")
    assert parts.dropped == {}


def test_a_pause_interrupts_a_part() -> None:
    clock = Clock()
    paused = False
    trigger = UnlessPaused(EveryFrame(handshake_at(clock)), lambda: paused)
    part = trigger(frame(clock.now_ns))
    assert trigger(frame(clock.now_ns), part) is part
    paused = True
    assert trigger(frame(clock.now_ns), part) is None


def test_nobody_can_queue_triggers_without_end() -> None:
    parts = OnCommand(handshake_at(Clock()), delay_ms=0)
    assert [parts.ask(None) for _ in range(1001)] == [True] * 1000 + [False]


def test_while_paused_no_frame_is_checked_and_each_is_counted() -> None:
    clock = Clock()
    paused = True
    trigger = UnlessPaused(EveryFrame(handshake_at(clock)), lambda: paused)
    assert trigger(frame(clock.now_ns)) is None
    paused = False
    assert trigger(frame(clock.now_ns)) == Part(None, 1_700_000_000_000, clock.now_ns)
    assert trigger.dropped == {"paused": 1}


class LineAgainstItsController(RuleBasedStateMachine):
    """Triggers, frames and time in any order: each part, of up to two frames, is answered once, in order, never late
    and valid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.handshake = handshake_at(self.clock)
        self.parts = OnCommand(self.handshake, delay_ms=0)
        self.asked: list[str] = []
        self.asked_ns: dict[str, int] = {}
        self.in_hand: Part | None = None
        self.looking: list[Part] = []
        self.heard: list[dict[str, Any]] = []

    @rule()
    def a_part_comes(self) -> None:
        self.clock.pass_ms(1)
        name = str(len(self.asked))
        part = Part(name, 0, self.clock.now_ns)
        self.handshake.expect(part)
        self.parts._waiting.append(part)
        self.asked.append(name)
        self.asked_ns[name] = self.clock.now_ns

    @rule(duration_ms=st.integers(0, 70))
    def time_passes(self, duration_ms: int) -> None:
        self.clock.pass_ms(duration_ms)

    @precondition(lambda self: not self.looking)
    @rule()
    def a_frame_comes(self) -> None:
        before, self.in_hand = self.in_hand, self.parts(frame(self.clock.now_ns), self.in_hand)
        if before is not None:
            self.looking.append(before)  # this was its second frame, or that of the next part
            self.in_hand = None if self.in_hand is before else self.in_hand

    @precondition(lambda self: self.looking)
    @rule()
    def it_is_judged(self) -> None:
        part = self.looking.pop()
        in_time = not self.handshake.is_late(part)
        assert self.handshake.answer(ok(part)) == in_time

    @rule()
    def the_publisher_speaks(self) -> None:
        self.parts.withdraw(self.handshake.overdue())
        self.heard += self.handshake.take()

    @invariant()
    def the_controller_is_served(self) -> None:
        heard = [one["partId"] for one in self.heard]
        assert heard == self.asked[: len(heard)]

    def teardown(self) -> None:
        self.clock.pass_ms(DEADLINE_MS)
        self.the_publisher_speaks()
        assert [one["partId"] for one in self.heard] == self.asked


TestLineAgainstItsController = LineAgainstItsController.TestCase
TestLineAgainstItsController.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
