"""The example programs for PLCs: what can be checked of them without a controller."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.messages.payloads import Status
from agent.messages.records import to_json
from agent.messages.topics import Topics

EXAMPLES = Path(__file__).resolve().parents[3] / "agent" / "trigger" / "examples"
PROGRAMS = [(EXAMPLES / name).read_text() for name in ("codesys.st", "twincat.st", "s7.scl")]
FLOW: list[dict[str, Any]] = json.loads((EXAMPLES / "node-red.json").read_text())
TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")
RUNNER = """
const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
const gate = new Function("msg", "flow", input.func);
const taken = input.cases.map(([expected, payload]) => {
    const context = expected === null ? {} : {expectedPartId: expected};
    const outputs = gate({payload}, {get: (key) => context[key]});
    return [outputs.length, outputs.findIndex((output) => output !== null && output.payload === payload)];
});
console.log(JSON.stringify(taken));
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


def test_the_wires_of_the_flow_lead_from_the_broker_to_the_rejects() -> None:
    nodes = {node["id"]: node for node in FLOW}
    assert len(nodes) == len(FLOW)
    path = [next(node for node in FLOW if node["type"] == "mqtt in")]
    assert nodes[path[0]["broker"]]["type"] == "mqtt-broker"
    assert path[0]["topic"] == f"{TOPICS.root}/plc"
    while path[-1]["wires"]:
        path.append(nodes[path[-1]["wires"][-1][0]])
    assert [node["type"] for node in path] == ["mqtt in", "json", "function", "debug"]
    assert path[-1]["name"] == "rejects"
    assert path[2]["outputs"] == len(path[2]["wires"]) == 2
    assert {node["z"] for node in FLOW if "z" in node} == {node["id"] for node in FLOW if node["type"] == "tab"}


def test_the_flow_passes_only_what_is_valid_and_ok_and_the_expected_part() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    passed: list[tuple[str | None, object]] = [("12", answer()), (None, answer(partId=None))]
    rejected: list[tuple[str | None, object]] = [
        ("12", answer(valid=False, resultEvaluation=3, resultCode=3)),
        ("12", answer(valid=False)),
        ("12", answer(resultEvaluation=2)),
        ("12", answer(resultEvaluation=0)),
        ("12", answer(resultEvaluation="1")),
        ("12", answer(valid="true")),
        ("12", answer(partId="13")),
        ("12", answer(partId=None)),
        ("12", answer(partId=12)),
        (None, answer()),
        ("12", {}),
        ("12", None),
        (None, None),
        (None, 1),
        (None, []),
    ]
    func = next(each["func"] for each in FLOW if each["type"] == "function")
    ended = subprocess.run(  # noqa: S603 - the flow's own function
        [node, "-e", RUNNER],
        input=json.dumps({"func": func, "cases": passed + rejected}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout) == [[2, 0]] * len(passed) + [[2, 1]] * len(rejected)
