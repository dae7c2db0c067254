from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.audit.log import AuditLog
from agent.commands.dispatcher import CommandDispatcher
from agent.commands.handlers import CommandHandlers
from agent.commands.mark import MarkCommand
from agent.errors import AuditError, CommandRefusedError
from agent.messages.payloads import CommandAck
from agent.messages.records import ResultCode, to_json
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Handshake
from agent.trigger.trigger import OnCommand
from agent.zones.station_controls import StationControls
from tests.support.published import problems
from tests.support.stations import until

if TYPE_CHECKING:
    from pathlib import Path

    from agent.commands.dispatcher import Command, Effect
    from agent.commands.schema import RollbackArguments

NOW_MS = 1_800_000_000_000
PASSPHRASE = "correct horse"  # noqa: S105 - of the test
ALL = ("trigger", "pause", "resume", "threshold", "rollback", "mark")


@dataclass
class PaperBundle:
    base_threshold: float = 100.0


@dataclass
class PaperZone:
    """Remembers what commands changed."""

    name: str = ""
    threshold: float | None = None
    active: PaperBundle = field(default_factory=PaperBundle)
    disk_is_full: bool = False

    def set_threshold(self, threshold: float | None) -> None:
        if self.disk_is_full:
            raise OSError(28, "No space left on device")
        self.threshold = threshold


class PaperRollback:
    def __init__(self) -> None:
        self.begun: list[str | None] = []

    def prepare(self, _: Command, arguments: RollbackArguments) -> Effect:
        if arguments.bundle == "0" * 8:
            raise CommandRefusedError(what="no such bundle was served here", remedy="bundles that were: none")
        return lambda: self.begun.append(arguments.bundle)


class Desk:
    """A station that can be commanded, without a camera and without a broker."""

    def __init__(
        self,
        folder: Path,
        accepted: tuple[str, ...] = ALL,
        token: str | None = None,
        *,
        triggers: bool = True,
    ) -> None:
        self.zone = PaperZone()
        self.controls = StationControls([self.zone])  # type: ignore[list-item]
        self.handshake = Handshake(100, lambda: ResultCode.TOO_LATE)
        self.parts = OnCommand(self.handshake, 0)
        self.rollback = PaperRollback()
        self.recalibrated: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.changes = 0
        self.log = folder / "audit.jsonl"
        actions = CommandHandlers(
            self.controls,
            self.parts if triggers else None,
            self.handshake,
            self.rollback,  # type: ignore[arg-type]
            lambda _, arguments: lambda: self.recalibrated.append(arguments.mode),
            MarkCommand(folder / "archive", self.told.append).prepare,
            self._change,
        )
        self.commands = CommandDispatcher(actions.by_name(), AuditLog(self.log), accepted, token, lambda: NOW_MS)

    def _change(self) -> None:
        self.changes += 1

    def give(self, name: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        text = json.dumps({"commandId": "17", **({} if args is None else {"args": args}), **more})
        return self.commands.answer(name, text.encode())

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def state(self) -> tuple[object, ...]:
        waiting = len(self.parts._waiting)
        return self.controls.paused, self.zone.threshold, waiting, len(self.rollback.begun), self.changes


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_pause_and_resume_are_done_announced_written_down_and_acknowledged(desk: Desk) -> None:
    answer = desk.give("pause", {"reason": "lens"}, by="Ana", expires=NOW_MS)
    (entry,) = desk.entries
    assert answer == {
        "commandId": "17",
        "command": "pause",
        "accepted": True,
        "error": None,
        "progress": None,
        "auditHash": entry["hash"],
    }
    assert desk.controls.paused == "paused by Ana: lens"
    assert {"event": "command", "command": "pause", "by": "Ana", "via": "mqtt"}.items() <= entry.items()
    assert entry["args"] == {"reason": "lens"}
    assert desk.give("resume", commandId="18")["accepted"]
    assert desk.controls.paused is None
    assert desk.changes == 2


def test_a_trigger_names_a_part_and_fills_no_log(desk: Desk) -> None:
    assert desk.give("trigger", {"partId": "SN-1"})["accepted"]
    assert [part.part_id for part in desk.parts._waiting] == ["SN-1"]
    assert desk.entries == []


def test_a_trigger_of_a_paused_station_is_refused_and_the_controller_receives_why(desk: Desk) -> None:
    desk.give("pause")
    assert "paused" in desk.give("trigger", {"partId": "SN-1"}, commandId="2")["error"]
    (said,) = desk.handshake.take()
    assert (said["partId"], said["valid"], said["resultCode"]) == ("SN-1", False, 5)


def test_a_station_that_looks_at_every_frame_takes_no_trigger(tmp_path: Path) -> None:
    answer = Desk(tmp_path, triggers=False).give("trigger", {"partId": "SN-1"})
    assert not answer["accepted"]
    assert "trigger.source: command" in answer["error"]


@pytest.mark.parametrize(
    ("threshold", "accepted"), [(10.0, True), (1000, True), (None, True), (9.9, False), (1001, False)]
)
def test_the_threshold_changes_within_limits(desk: Desk, threshold: float | None, accepted: bool) -> None:  # noqa: FBT001 - a parameter
    desk.zone.threshold = 55.0
    answer = desk.give("threshold", {"threshold": threshold})
    assert answer["accepted"] == accepted
    assert desk.zone.threshold == (threshold if accepted else 55.0)
    assert accepted or "10 to 1000" in answer["error"]


def test_a_threshold_that_cannot_be_kept_is_refused_and_the_log_says_both(desk: Desk) -> None:
    desk.zone.disk_is_full = True
    assert "No space left" in desk.give("threshold", {"threshold": 50.0})["error"]
    assert [entry["event"] for entry in desk.entries] == ["command", "refused"]
    assert desk.changes == 0


@pytest.mark.parametrize(
    ("name", "args"), [("pause", {"reason": "lens"}), ("resume", {}), ("threshold", {"threshold": 50.0})]
)
def test_a_command_that_changes_nothing_is_accepted_and_not_written_down(
    desk: Desk, name: str, args: dict[str, Any]
) -> None:
    desk.give("pause", {"reason": "before"}, commandId="before")
    assert desk.give(name, args, commandId="0")["auditHash"] is not None
    entries, changes = desk.entries, desk.changes
    for number in range(1, 200):
        answer = desk.give(name, args, commandId=f"{number}")
        assert (answer["accepted"], answer["auditHash"]) == (True, None)
    assert (desk.entries, desk.changes) == (entries, changes)


def test_a_pause_for_another_reason_is_a_change(desk: Desk) -> None:
    for reason in ("lens", "lamp"):
        desk.give("pause", {"reason": reason}, commandId=reason)
    assert [entry["args"]["reason"] for entry in desk.entries] == ["lens", "lamp"]


def test_an_image_is_marked_next_to_other_commands_and_the_second_answer_reports_the_outcome(desk: Desk) -> None:
    answer = desk.give("mark", {"resultId": "0123456789abcdef", "label": "good"}, by="Ana")
    assert (answer["accepted"], answer["progress"]) == (True, 0.0)
    until(lambda: desk.told)
    assert (desk.told[0]["accepted"], desk.told[0]["progress"]) == (False, 1.0)
    assert "archive" in desk.told[0]["error"]
    assert desk.entries[-1]["args"] == {"resultId": "0123456789abcdef", "label": "good", "by": None}
    assert not desk.give("mark", {"resultId": "0123456789abcdef", "label": "nice"}, commandId="2")["accepted"]


def test_rollback_takes_time_and_says_so(desk: Desk) -> None:
    answer = desk.give("rollback")
    assert (answer["accepted"], answer["progress"]) == (True, 0.0)
    assert desk.rollback.begun == [None]
    refused = desk.give("rollback", {"bundle": "00000000"}, commandId="2")
    assert "no such bundle" in refused["error"]
    assert desk.rollback.begun == [None]


def test_a_command_that_comes_again_is_answered_as_before_and_not_done_again(desk: Desk) -> None:
    first = desk.give("trigger", {"partId": "SN-1"})
    assert desk.give("trigger", {"partId": "SN-1"}) == first
    assert len(desk.parts._waiting) == 1
    assert desk.give("pause")["command"] == "pause"  # the same number for another command is another command
    desk.give("resume")
    desk.give("pause")
    assert desk.controls.paused is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "malformed"),
        (b"pause", "malformed"),
        (b'{"args": {}}', "commandId: Field required"),
        (b'{"commandId": true}', "commandId: Value error, give text of 1 to 64 characters, or a number"),
        (b'{"commandId": 1e400}', "commandId: Value error, give text of 1 to 64 characters, or a number"),
        (b'{"commandId": [17]}', "commandId: Value error, give text of 1 to 64 characters, or a number"),
        (b'{"commandId": "17", "argument": {}}', "argument: Extra inputs are not permitted"),
        (b'{"commandId": "17", "args": {"why": "lens"}}', "args.why: Extra inputs are not permitted"),
        (b'{"commandId": "17", "args": {"reason": 4}}', "args.reason: Input should be a valid string"),
        (b'{"commandId": "17", "expires": "tomorrow"}', "expires: Input should be a valid integer"),
        (b'{"commandId": "17", "expires": 1799999999000}', "expired 1000 ms ago"),
        (b"[" * 50_000, "malformed"),
        (b'"' + b"x" * 70_000 + b'"', "70002 bytes are too long for a command"),
    ],
)
def test_what_is_no_command_is_refused_with_the_reason_and_written_down(desk: Desk, text: bytes, told: str) -> None:
    answer = desk.commands.answer("pause", text)
    assert not answer["accepted"]
    assert told in answer["error"]
    assert answer["commandId"] == ("17" if b'"17"' in text else None)
    (entry,) = desk.entries
    assert entry["event"] == "refused"
    assert told in entry["reason"]
    assert desk.controls.paused is None
    assert desk.commands.refused == {"pause": 1}


@pytest.mark.parametrize(
    ("backbone", "told"), [("filterbank", None), (None, None), ("lite0", "args.backbone: Input should be 'filterbank'")]
)
def test_another_product_is_taught_with_the_backbone_of_the_bundle_or_with_the_one_without_weights(
    tmp_path: Path, backbone: str | None, told: str | None
) -> None:
    desk = Desk(tmp_path, accepted=("recalibrate",))
    answer = desk.give("recalibrate", {"mode": "teach", "backbone": backbone})
    assert answer["accepted"] is (told is None)
    assert desk.recalibrated == (["teach"] if told is None else [])
    assert (told or "") in (answer["error"] or "")


@pytest.mark.parametrize("number", [17, 0, -1, 17.5, 2**62])
def test_a_number_as_command_id_is_accepted_and_answered_with_it(desk: Desk, number: float) -> None:
    answer = desk.give("pause", commandId=number)
    assert answer["accepted"]
    assert answer["commandId"] == number
    assert type(answer["commandId"]) is type(number)
    assert problems("cmd/ack", answer) == []
    assert CommandAck.read(answer).payload() == answer
    assert desk.give("pause", commandId=number) == answer
    assert desk.entries[0]["commandId"] == number
    assert len(desk.entries) == 1
    refused = desk.give("threshold", {"threshold": -1.0}, commandId=number)
    assert (refused["accepted"], refused["commandId"]) == (False, number)
    done_later = desk.give("mark", {"resultId": "0123456789abcdef", "label": "good"}, commandId=number)
    until(lambda: desk.told)
    assert done_later["commandId"] == desk.told[0]["commandId"] == number


@pytest.mark.parametrize(
    ("name", "args", "remedy"),
    [
        ("mark", {"resultId": "0123", "label": "good"}, "this command takes resultId, label, by"),
        ("pause", {"why": "lens"}, "this command takes reason"),
        ("resume", {"reason": "lens"}, "this command takes none"),
        ("threshold", {}, "this command takes threshold, zone"),
    ],
)
def test_the_remedy_for_wrong_arguments_names_those_of_the_command(
    desk: Desk, name: str, args: dict[str, Any], remedy: str
) -> None:
    assert remedy in desk.give(name, args)["error"]


def test_a_retained_command_is_refused(desk: Desk) -> None:
    answer = desk.commands.answer("pause", b'{"commandId": "17"}', retained=True)
    assert "it is a retained message" in answer["error"]
    assert answer["commandId"] == "17"
    assert desk.controls.paused is None


def test_the_refusal_of_an_unknown_command_lists_the_commands(desk: Desk) -> None:
    assert "trigger, pause, resume, threshold, rollback" in desk.give("explode")["error"]


@pytest.mark.parametrize("text", [b"", b"now", b'{"commandId": 17}', b"x" * 100_000])
@pytest.mark.parametrize("name", ["", "Pause", "explode" * 5000])
def test_an_unknown_command_is_answered_as_such_whatever_it_says(desk: Desk, name: str, text: bytes) -> None:
    answer = desk.commands.answer(name, text)
    assert not answer["accepted"]
    assert f"there is no command {name[:64]!r}" in answer["error"]
    assert answer["commandId"] == (17 if b"17" in text else None)
    assert len(to_json(answer)) < 500


def test_made_up_commands_do_not_make_the_counts_grow(desk: Desk) -> None:
    for number in range(1000):
        desk.commands.answer(f"made-up-{number}", b"{}")
    assert desk.commands.refused == {"unknown": 1000}


def test_only_accepted_commands_come_over_mqtt_but_all_on_the_device(tmp_path: Path) -> None:
    desk = Desk(tmp_path, accepted=("trigger",))
    assert "commands.accept" in desk.give("pause")["error"]
    assert desk.controls.paused is None
    answer = desk.commands.answer("pause", b'{"commandId": "2", "by": "Mallory"}', via="local", user="ana")
    assert answer["accepted"]
    assert desk.controls.paused == "paused by ana"


def test_what_changes_the_station_needs_the_token_and_the_log_never_holds_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, token=PASSPHRASE)
    assert "needs a token" in desk.give("pause")["error"]
    assert "token is wrong" in desk.give("pause", commandId="2", token=PASSPHRASE + "!")["error"]
    assert desk.controls.paused is None
    assert desk.give("trigger", commandId="4")["accepted"]
    assert desk.give("pause", commandId="5", token=PASSPHRASE)["accepted"]
    assert PASSPHRASE not in desk.log.read_text()
    assert [entry["event"] for entry in desk.entries] == ["refused", "refused", "command"]


def test_what_cannot_be_written_down_is_not_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise AuditError(what="the audit log is full", remedy="make room")

    monkeypatch.setattr(AuditLog, "append", full)
    assert "the audit log is full" in desk.give("pause")["error"]
    assert desk.controls.paused is None


def test_a_flood_of_refused_commands_does_not_fill_the_disk(desk: Desk) -> None:
    for number in range(1000):
        desk.commands.answer("pause", b"x%d" % number)
    assert len(desk.entries) == 100
    assert desk.commands.refused == {"pause": 1000}


def test_too_many_parts_are_refused(desk: Desk) -> None:
    for number in range(1000):
        desk.parts._waiting.append(Part(str(number), 0, 0))
    assert "too many parts" in desk.give("trigger")["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=12), children, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["commandId", "args", "expires", "by", "token", "x"])
ENVELOPES = st.dictionaries(KEYS, JSON, max_size=6) | st.fixed_dictionaries(
    {"commandId": st.text(max_size=70) | st.integers()},
    optional={
        "args": st.dictionaries(
            st.sampled_from(["partId", "reason", "threshold", "bundle", "x"]),
            JSON | st.floats(1, 2000) | st.text("0123456789abcdef", max_size=12),
            max_size=2,
        ),
        "expires": st.integers(NOW_MS - 10, NOW_MS + 10),
        "token": st.just(PASSPHRASE) | st.text(max_size=5),
    },
)
PAYLOADS = (
    st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | (ENVELOPES.map(lambda content: json.dumps(content).encode()))
)


def is_valid(name: str, text: bytes, *, retained: bool) -> bool:
    """Whether this is a command that may change something, said independently of the code that decides it."""
    try:
        content = json.loads(text)
        args = content.get("args", {})
        well_formed = (
            isinstance(content["commandId"], (str, int, float))
            and 1 <= len(str(content["commandId"])) <= 64
            and isinstance(args, dict)
            and content.keys() <= {"commandId", "args", "expires", "by", "token"}
            and (content.get("expires") is None or content["expires"] >= NOW_MS)
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    allowed = name == "trigger" or content.get("token") == PASSPHRASE
    known = {
        "trigger": {"partId"},
        "pause": {"reason"},
        "resume": set(),
        "threshold": {"threshold"},
        "rollback": {"bundle"},
        "mark": {"resultId", "label"},
    }
    return well_formed and allowed and name in known and args.keys() <= known[name] and not retained


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("fuzzed"), token=PASSPHRASE)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(name=st.sampled_from([*ALL, "ack", "", "reboot"]), text=PAYLOADS, retained=st.sampled_from([False] * 9 + [True]))
def test_no_payload_crashes_or_changes_anything_without_being_a_valid_command(
    fuzzed: Desk, name: str, text: bytes, *, retained: bool
) -> None:
    before = fuzzed.state
    answer = fuzzed.commands.answer(name, text, retained=retained)
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["accepted"] == (answer["error"] is None)
    if fuzzed.state != before:
        assert answer["accepted"]
        assert is_valid(name, text, retained=retained)
    fuzzed.parts._waiting.clear()
    fuzzed.controls.paused = None
    fuzzed.zone.threshold = None
