"""The example programs for PLCs: what can be checked of them without a controller."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from agent.commands.schema import TriggerArguments, arguments_of, envelope_of
from agent.messages.payloads import Status
from agent.messages.records import to_json
from agent.messages.topics import Topics

EXAMPLES = Path(__file__).resolve().parents[3] / "agent" / "trigger" / "examples"
PROGRAMS = [(EXAMPLES / name).read_text() for name in ("codesys.st", "twincat.st", "s7.scl")]
FLOW: list[dict[str, Any]] = json.loads((EXAMPLES / "node-red.json").read_text())
TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")
RUNNER = """
const { start, func, events } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const kept = {}, sent = [];
let clock = 1795919395000, elapsed = 0, timers = [];
const context = { get: (key) => kept[key], set: (key, value) => { kept[key] = value; } };
const collect = (outputs) => (outputs ?? []).forEach((msg, place) => {
    if (msg) sent.push([["passed", "rejects"][place], msg.payload]);
});
const surroundings = {
    context, node: { send: collect }, Date: { now: () => clock },
    setTimeout: (call, ms) => { timers.push({ call, at: elapsed + ms }); return timers.at(-1); },
    clearTimeout: (timer) => { timers = timers.filter((each) => each !== timer); },
};
const compiled = (code) => {
    const body = new Function("msg", ...Object.keys(surroundings), code);
    return (msg) => body(msg, ...Object.values(surroundings));
};
compiled(start)();
const gate = compiled(func);
for (const { wait = 0, hang = 0, clockMoves = 0, ...msg } of events) {
    elapsed += wait + hang;
    clock += wait + hang + clockMoves;
    for (const timer of hang ? [] : timers.filter(({ at }) => at <= elapsed)) {
        surroundings.clearTimeout(timer);
        timer.call();
    }
    if (msg.topic) collect(gate(msg));
}
console.log(JSON.stringify(sent));
"""


def answer(**changed: object) -> dict[str, Any]:
    return {
        "seq": 7,
        "partId": "12",
        "resultEvaluation": 1,
        "resultCode": 0,
        "score": 3.5,
        "valid": True,
        "ageMs": 40,
        **changed,
    }


def test_the_contract_links_every_example() -> None:
    contract = (EXAMPLES.parent / "README.md").read_text()
    assert [path.name for path in EXAMPLES.iterdir() if f"(examples/{path.name})" not in contract] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_look_for_what_the_agent_says(program: str) -> None:
    status = to_json(
        Status(online=True, timestamp_ms=1, state="running", reason="", session_id="s", version="0").payload()
    )
    searched = re.findall(r"FIND\([^,]+, (?:IN2 := )?'([^']+)'\)", program)
    for text in searched:
        assert text in status + to_json(answer())
    assert searched or all(f"'{key}'" in program for key in ("online", "state", "partId", "valid", "resultEvaluation"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_speak_of_the_topics_of_one_station(program: str) -> None:
    topics = set(re.findall(r"acme/[\w/]+", program))
    assert topics == {TOPICS.status, f"{TOPICS.root}/plc", f"{TOPICS.root}/cmd/trigger"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_trigger_with_json(program: str) -> None:
    begin, middle, expires, end = re.findall(
        r"'(\{\"commandId\":\"|\",\"args\":\{\"partId\":\"|\"\},\"expires\":|0*,\"by\":\"gate\"\})'", program
    )
    assert json.loads(f"{begin}12{middle}12{expires}1795919395{end}") == {
        "commandId": "12",
        "args": {"partId": "12"},
        "expires": int(f"1795919395{end.partition(',')[0]}"),
        "by": "gate",
    }


@pytest.mark.parametrize("text", [*PROGRAMS, (EXAMPLES.parent / "README.md").read_text()])
def test_no_example_names_a_time_that_never_comes(text: str) -> None:
    assert not re.search(r"\b[2-9]\d{12}\b", text)
    assert "expires" in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_blocks_of_programs_are_closed(program: str) -> None:
    code = re.sub(r"//.*", "", program)
    for begin in ("IF", "CASE", "WHILE", "VAR"):
        opened = len(re.findall(rf"(?<![\w_]){begin}(?:_INPUT|_OUTPUT)?(?![\w_])", code))
        assert opened == len(re.findall(rf"\bEND_{begin}\b", code)), begin
    assert code.count("(") == code.count(")")
    assert code.count("'") % 2 == 0


# The flow for Node-RED


def nodes(kind: str) -> list[dict[str, Any]]:
    return [node for node in FLOW if node["type"] == kind]


def function(name: str) -> dict[str, Any]:
    return next(node for node in nodes("function") if node["name"] == name)


def test_the_wires_of_the_flow_lead_from_each_topic_through_the_gate_to_the_rejects() -> None:
    by_id = {node["id"]: node for node in FLOW}
    assert len(by_id) == len(FLOW)
    paths = []
    for first in nodes("mqtt in"):
        paths.append([first])
        while paths[-1][-1]["wires"]:
            paths[-1].append(by_id[paths[-1][-1]["wires"][-1][0]])
    assert [[node["name"] or node["type"] for node in path] for path in paths] == [
        ["status", "json", "gate", "rejects"],
        ["trigger", "json", "gate", "rejects"],
        ["plc", "json", "gate", "rejects"],
    ]
    assert [path[0]["topic"] for path in paths] == [TOPICS.status, f"{TOPICS.root}/cmd/trigger", TOPICS.plc]
    assert [by_id[wire[0]]["name"] for wire in function("gate")["wires"]] == ["passed", "rejects"]
    assert not any(node["nl"] for node in nodes("mqtt in")), "its own trigger must come back to it"
    assert {node["z"] for node in FLOW if "z" in node} == {node["id"] for node in nodes("tab")}
    assert {by_id[node["broker"]]["type"] for node in FLOW if "mqtt " in node["type"]} == {"mqtt-broker"}


def in_node(code: str, **given: object) -> Any:  # noqa: ANN401 - what the code prints
    """Run JavaScript that reads what is given from its standard input and prints JSON."""
    node = shutil.which("node")
    if node is None:
        message = "node is not installed: apt-get install nodejs"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    ended = subprocess.run([node, "-e", code], input=json.dumps(given), capture_output=True, text=True, check=False)  # noqa: S603 - the flow's own functions
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def gated(*events: dict[str, Any]) -> list[tuple[str, Any]]:
    """What the gate of the flow sends, by output; first it hears that the station is running."""
    gate = function("gate")
    sent = in_node(RUNNER, start=gate["initialize"], func=gate["func"], events=[RUNNING, *events])
    return [(output, payload) for output, payload in sent]


def said(topic: str, payload: object, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - of the message
    return {"topic": f"{TOPICS.root}/{topic}", "payload": payload, "retain": False, **more}


def triggered(part: str | None = "12", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - of the message
    args = {} if part is None else {"partId": part}
    return said("cmd/trigger", {"commandId": "c", "args": args, "expires": 1, "by": "gate"}, **more)


def answered(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - of the answer, or of the message
    of_message = {key: more.pop(key) for key in ("wait", "hang", "clockMoves", "retain") if key in more}
    return said("plc", answer(**more), **of_message)


RUNNING = said("status", {"online": True, "state": "running"}, retain=True)
NO_ANSWER = {"partId": "12", "resultEvaluation": 3, "valid": False}
GOOD, NAMELESS = answer(), answer(partId=None)


def test_a_good_part_that_was_triggered_passes() -> None:
    assert gated(triggered(), answered(wait=40)) == [("passed", GOOD)]


def test_each_part_on_its_way_is_known() -> None:
    events = [triggered("12"), triggered("13", wait=50), answered(wait=10), answered(partId="13", wait=40)]
    assert gated(*events) == [("passed", GOOD), ("passed", answer(partId="13"))]


def test_where_nothing_triggers_good_parts_without_a_name_pass() -> None:
    assert gated(answered(partId=None), answered(partId=None, wait=5000)) == [("passed", NAMELESS)] * 2


@pytest.mark.parametrize(
    "changed",
    [
        {"valid": False, "resultEvaluation": 3, "resultCode": 3},
        {"valid": False},
        {"valid": "true"},
        {"resultEvaluation": 2},
        {"resultEvaluation": 3},
        {"resultEvaluation": 0},
        {"resultEvaluation": "1"},
    ],
)
@pytest.mark.parametrize("part", ["12", None])
def test_what_is_not_a_valid_ok_is_rejected(part: str | None, changed: dict[str, Any]) -> None:
    before = [triggered(part)] if part else []
    assert gated(*before, answered(partId=part, **changed), {"wait": 1000}) == [
        ("rejects", answer(partId=part, **changed))
    ]


@pytest.mark.parametrize("part", ["13", 12, None, "", ["12"], "constructor"])
def test_an_answer_for_another_part_passes_nothing_and_the_part_is_rejected(part: object) -> None:
    events = [triggered(), answered(partId=part, wait=40), {"wait": 1000}]
    assert gated(*events) == [("rejects", answer(partId=part)), ("rejects", NO_ANSWER)]


@pytest.mark.parametrize("payload", [None, 1, [], {}, {"valid": True, "resultEvaluation": 1}, "text"])
def test_what_is_no_answer_is_rejected(payload: object) -> None:
    assert gated(said("plc", payload)) == [("rejects", payload)]


def test_a_part_without_an_answer_in_time_is_rejected_once() -> None:
    assert gated(triggered(), {"wait": 299}) == []
    assert gated(triggered(), {"wait": 301}, answered(wait=1)) == [("rejects", NO_ANSWER)]


@pytest.mark.parametrize("late", [{"hang": 301}, {"clockMoves": -1000}, {"clockMoves": 1000}])
def test_an_answer_passes_nothing_where_the_time_is_late_or_unknown(late: dict[str, int]) -> None:
    assert gated(triggered(), answered(**late), {"wait": 1000}) == [("rejects", GOOD)]


def test_an_answer_that_comes_twice_is_one_part() -> None:
    assert gated(triggered(), answered(wait=40), answered(wait=1), triggered(), answered()) == [("passed", GOOD)]
    bad = answer(resultEvaluation=2)
    assert gated(triggered(), answered(resultEvaluation=2), answered()) == [("rejects", bad)]


@pytest.mark.parametrize("part", ["12", None])
def test_once_parts_are_triggered_none_without_a_name_passes(part: str | None) -> None:
    assert gated(triggered(part), {"wait": 1000}, answered(partId=None))[-1] == ("rejects", NAMELESS)


def test_what_a_broker_has_kept_passes_nothing() -> None:
    assert gated(answered(partId=None, retain=True)) == [("rejects", NAMELESS)]
    assert gated(triggered(retain=True), answered(wait=40)) == [("rejects", GOOD)]
    assert gated(triggered(), answered(wait=40, retain=True)) == [("rejects", GOOD)]


@pytest.mark.parametrize("state", [{"online": True, "state": "fault"}, {"online": False, "state": "running"}, None])
def test_nothing_passes_unless_the_station_is_running(state: object) -> None:
    stopped = said("status", state, retain=True)
    assert gated(stopped, triggered(), answered(wait=40)) == [("rejects", GOOD)]
    assert gated(stopped, answered(partId=None)) == [("rejects", NAMELESS)]
    assert gated(stopped, RUNNING, answered(partId=None)) == [("passed", NAMELESS)]


def test_nothing_passes_before_the_state_is_known() -> None:
    gate = function("gate")
    events = [triggered(), answered(wait=40)]
    sent = in_node(RUNNER, start=gate["initialize"], func=gate["func"], events=events)
    assert sent == [["rejects", GOOD]]


def test_the_gate_remembers_a_bounded_number_of_parts() -> None:
    parts = [event for number in range(1200) for event in (triggered(f"n{number}"), answered(partId=f"n{number}"))]
    assert gated(*parts) == [("passed", answer(partId=f"n{number}")) for number in range(1200)]
    again = [*parts, answered(partId="n1199"), answered(partId="n0")]
    assert gated(*again)[1200:] == [("rejects", answer(partId="n0"))]


def test_the_trigger_of_the_flow_is_one_that_the_station_takes_and_the_gate_knows() -> None:
    code = 'const { func } = JSON.parse(require("fs").readFileSync(0, "utf8"));'
    sent = in_node(f"{code} console.log(JSON.stringify(new Function(func)()));", func=function("name it")["func"])
    envelope = envelope_of(json.dumps(sent["payload"]).encode(), retained=False)
    part = arguments_of(TriggerArguments, envelope.args).part_id
    assert isinstance(part, str)
    assert envelope.command_id == part
    assert envelope.expires is not None
    assert 0 < envelope.expires - time.time() * 1000 <= 1000
    assert sent["messageExpiryInterval"] == 1
    (out,) = nodes("mqtt out")
    assert (out["topic"], out["qos"], out["retain"]) == (f"{TOPICS.root}/cmd/trigger", "1", "false")
    assert function("name it")["wires"] == [[out["id"]]]
    assert gated(said("cmd/trigger", sent["payload"]), answered(partId=part)) == [("passed", answer(partId=part))]
