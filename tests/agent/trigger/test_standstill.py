from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from agent.audit.log import AuditLog
from agent.clock import now_ms
from agent.commands import cli
from agent.commands.dispatcher import CommandDispatcher
from agent.commands.handlers import CommandHandlers
from agent.messages.records import ResultCode
from agent.messages.topics import Topics
from agent.mqtt.connection import Received
from agent.mqtt.live_messages import LiveMessages
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Handshake
from agent.trigger.standstill import Standstill
from agent.trigger.trigger import OnCommand
from agent.zones.station_controls import StationControls
from tests.support.stations import until

if TYPE_CHECKING:
    from pathlib import Path

TOPICS = Topics("a/b")
DEADLINE_MS = 200
MS = 1_000_000


class Clock:
    """Runs on while the machine is suspended, and is moved by the test."""

    def __init__(self) -> None:
        self.now_ns = 77 * MS

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, duration_ms: int) -> None:
        self.now_ns += duration_ms * MS


class Line:
    """The publisher's thread of a station that is triggered by commands, without a broker and without a camera."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.handshake = Handshake(DEADLINE_MS, lambda: ResultCode.TOO_LATE)
        self.parts = OnCommand(self.handshake, 0)
        handlers = CommandHandlers(
            StationControls([]),
            self.parts,
            self.handshake,
            SimpleNamespace(prepare=None),  # type: ignore[arg-type] # no test rolls back
            lambda *_: lambda: None,
            lambda *_: lambda: None,
            lambda: None,
        )
        commands = CommandDispatcher(
            handlers.by_name(), AuditLog(folder / "audit.jsonl"), ("trigger", "pause", "resume")
        )
        self.live = LiveMessages(
            TOPICS, self.handshake, commands, self.handshake.overdue, Standstill(DEADLINE_MS, self.clock)
        )
        self._count = 0

    def trigger(self, part_id: str) -> None:
        self._count += 1
        text = json.dumps({"commandId": str(self._count), "args": {"partId": part_id}, "expires": 4_102_444_800_000})
        self.live.receive(Received(f"{TOPICS.root}/cmd/trigger", text.encode(), retained=False))

    def heard(self) -> tuple[dict[str, bool], dict[str, Any]]:
        """By part whether it is valid; by command the answer."""
        messages = [(message.topic, json.loads(message.payload)) for message in self.live.take()]
        plc = {payload["partId"]: payload["valid"] for topic, payload in messages if topic == TOPICS.plc}
        return plc, {payload["commandId"]: payload for topic, payload in messages if topic != TOPICS.plc}

    def answers(self, count: int) -> dict[str, Any]:
        """This number of answers to commands, once they have come."""
        answers: dict[str, Any] = {}

        def have_come() -> bool:
            answers.update(self.heard()[1])
            return len(answers) >= count

        until(have_come)
        return answers

    @property
    def asked(self) -> list[str | None]:
        """Parts that are to be inspected."""
        return [part.part_id for part in self.parts._waiting]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_a_trigger_that_is_read_at_once_is_taken(line: Line) -> None:
    line.live.take()
    line.clock.pass_ms(DEADLINE_MS // 4)
    line.trigger("now")
    assert line.asked == ["now"]


def test_triggers_that_waited_while_the_process_stood_still_are_refused_and_answered_as_not_valid(line: Line) -> None:
    line.live.take()
    line.clock.pass_ms(20_000)
    for part_id in ("first", "second", "third"):
        line.trigger(part_id)
        line.clock.pass_ms(1)
    assert line.asked == []
    plc, answers = line.heard()
    assert plc == {"first": False, "second": False, "third": False}
    assert [answer["accepted"] for answer in answers.values()] == [False] * 3
    assert "may be 20.0 s old: the agent stood still" in answers["1"]["error"]


def test_the_answer_says_how_old_the_trigger_may_be(line: Line) -> None:
    line.live.take()
    line.clock.pass_ms(20_000)
    line.trigger("old")
    (answer,) = [json.loads(message.payload) for message in line.live.take() if message.topic == TOPICS.plc]
    assert answer["ageMs"] >= 20_000
    assert answer["resultCode"] == ResultCode.TOO_LATE


def test_triggers_that_the_broker_still_hands_over_are_old_too_and_later_ones_are_not(line: Line) -> None:
    line.live.take()
    line.clock.pass_ms(20_000)
    for number in range(5):
        line.trigger(f"old{number}")
        line.heard()
        line.clock.pass_ms(40)  # from one acknowledgement to the next
    for _ in range(6):
        line.clock.pass_ms(50)
        line.heard()
    line.trigger("new")
    assert line.asked == ["new"]


def test_a_line_that_is_faster_than_the_backlog_is_inspected_again_after_two_seconds(line: Line) -> None:
    line.live.take()
    line.clock.pass_ms(20_000)
    for number in range(60):
        line.trigger(str(number))
        line.heard()
        line.clock.pass_ms(50)
    assert line.asked[0] == "40"


def test_a_part_that_waited_for_its_frame_is_given_up_although_the_monotonic_clock_stood_still(line: Line) -> None:
    line.live.take()
    line.trigger("before")
    assert line.asked == ["before"]
    line.clock.pass_ms(20_000)  # suspended: frames that come now show another part
    plc, _ = line.heard()
    assert plc == {"before": False}


def test_nothing_has_waited_in_a_new_connection(line: Line) -> None:
    line.live.take()
    line.clock.pass_ms(60_000)  # without a broker
    line.live.discard()
    line.live.take()
    line.trigger("new")
    assert line.asked == ["new"]


def test_what_is_no_trigger_is_carried_out_after_a_standstill(line: Line) -> None:
    line.live.take()
    line.clock.pass_ms(20_000)
    text = json.dumps({"commandId": "p"}).encode()
    line.live.receive(Received(f"{TOPICS.root}/cmd/pause", text, retained=False))
    assert line.answers(1)["p"]["accepted"]


def test_a_trigger_does_not_wait_for_a_command_that_waits_for_the_disk(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_works, answered = threading.Event(), threading.Event()
    append = AuditLog.append

    def hang(*arguments: Any, **more: Any) -> str:  # noqa: ANN401 - those of the method
        assert disk_works.wait(10)
        return append(*arguments, **more)

    monkeypatch.setattr(AuditLog, "append", hang)
    line.live.notify = answered.set
    line.live.take()
    for number in range(102):
        text = json.dumps({"commandId": f"resume{number}"}).encode()
        line.live.receive(Received(f"{TOPICS.root}/cmd/resume", text, retained=False))
    line.trigger("meanwhile")
    assert line.asked == ["meanwhile"]
    _, answers = line.heard()
    assert answers.pop("1")["accepted"], "the trigger"
    assert all("too many commands wait for the disk" in answer["error"] for answer in answers.values())
    assert 1 <= len(answers) <= 2
    disk_works.set()
    assert answered.wait(10)
    later = line.answers(102 - len(answers))
    assert all(answer["accepted"] for answer in later.values())


def test_the_wait_for_messages_is_short_enough_to_show_a_standstill(line: Line) -> None:
    standstill = Standstill(DEADLINE_MS, line.clock)
    assert standstill.wait_s <= DEADLINE_MS / 2000
    assert line.live.due_at_s < float("inf")


def test_a_trigger_of_the_command_line_expires_before_another_part_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[dict[str, Any]] = []

    def take(_: Path, command: dict[str, Any]) -> list[dict[str, Any]]:
        given.append(command)
        return [{"accepted": True, "progress": None}]

    monkeypatch.setattr(cli, "ask_station", take)
    monkeypatch.setattr("agent.config.model.load", lambda _: SimpleNamespace(state_dir=tmp_path))
    cli.trigger(tmp_path, "A")
    cli.resume(tmp_path)
    assert 0 < given[0]["expires"] - now_ms() <= 2000
    assert given[1]["expires"] is None, "it is as right later"


def test_a_part_of_long_ago_says_so() -> None:
    now, before = Part.asked_now("A"), Part.asked_now("A", 5000)
    assert 4900 < now.asked_at_ms - before.asked_at_ms < 5100
    assert 4900 * MS < now.asked_ns - before.asked_ns < 5100 * MS
