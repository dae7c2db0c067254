"""The bytes of every message: each line of ``wire_format.txt`` is a topic and a message of version 0.1.0.

They must never change: programs of controllers search in the text, and records of an older version wait in outboxes.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from agent.messages.payloads import (
    ABSENT_IF_NULL,
    MESSAGES,
    AlertState,
    BundleInfo,
    CommandAck,
    Health,
    Info,
    PlcMessage,
    Status,
)
from agent.messages.records import Alert, DefectRegion, Evaluation, Result, ResultCode, ZoneResult, to_json
from agent.messages.schema import schema, schema_text
from tests.support.published import PUBLISHED, field_rows, problems

HERE = Path(__file__).parent
PACKAGE = Path(__file__).parents[3] / "agent" / "messages"
LINES = [line.split(" ", 1) for line in (HERE / "wire_format.txt").read_text().splitlines()]
OK, NOT_OK, NOT_DECIDABLE = Evaluation.OK, Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE

BUNDLE = BundleInfo(
    bundle_hash="c0ffee",
    threshold=100.0,
    false_reject_rate=0.001,
    backend="onnxruntime",
    backend_reason="no TensorRT here",
    calibrated_at_ms=1767225600000,
)
LEFT = replace(BUNDLE, threshold=math.nan)
SENT = (
    Result(
        result_id="f" * 32,
        seq=7,
        part_id="SN-0815",
        created_at_ms=1767225600123,
        evaluation=NOT_OK,
        score=150.0,
        threshold=100.0,
        regions=(DefectRegion(1, 2, 30, 40, 1e16),),
        image_ref="2026-01-01/000000-123_7.png",
        processing_times_ms={"network": 12.5, "total": 1e-07},
        speed_px_s=312.5,
        camera_frame=65_535,
        camera_time_us=1_790_000_000_000_000,
    ),
    Result(
        result_id="e" * 32,
        seq=None,
        part_id=None,
        created_at_ms=1,
        evaluation=NOT_DECIDABLE,
        code=ResultCode.TOO_LATE,
        score=math.nan,
        threshold=math.nan,
        frames=0,
        is_simulated=True,
    ),
    Result(
        result_id="d" * 32,
        seq=0,
        part_id='Prüfling ✓ "1"',
        created_at_ms=1,
        evaluation=OK,
        score=3,
        threshold=0.0,
        processing_times_ms={"network": math.inf},
    ),
    Result(
        result_id="c" * 32,
        seq=5,
        part_id="a\udcff",
        created_at_ms=1,
        evaluation=NOT_OK,
        score=1e22,
        threshold=3.5,
        frames=3,
        zone="label",
        zones={
            "label": ZoneResult(seq=5, evaluation=NOT_OK, code=ResultCode.NONE, score=1e22, threshold=3.5),
            "thread": ZoneResult(seq=4, evaluation=NOT_DECIDABLE, code=ResultCode.DARK, score=-math.inf, threshold=1.0),
        },
        regions=(DefectRegion(0, 0, 1, 1, math.inf, "label"),),
    ),
    Alert(alert_id="a", type="new", severity=812, cause="defect", started_at_ms=5, result_id="r"),
    Alert(alert_id="a", type="end", severity=200, cause="drift: darker", started_at_ms=5, ended_at_ms=9),
    AlertState(
        timestamp_ms=9,
        active=(Alert(alert_id="a", type="update", severity=500, cause="camera dark", started_at_ms=5, result_id="r"),),
    ),
    AlertState(timestamp_ms=9, active=()),
    Status(online=True, timestamp_ms=1767225600000, state="running", reason="", session_id="s", version="0.1.0"),
    Info.of(BUNDLE, "/dev/video0", {}),
    Info.of(BUNDLE, "0", {"left": LEFT}),
    Health(
        timestamp_ms=1,
        fps=24.97,
        p50_ms={"total": 20.0},
        p99_ms={"total": math.nan},
        captured=9,
        results=8,
        results_per_s=24.5,
        ok=6,
        not_ok=1,
        not_decidable=1,
        camera="running",
        dropped={"superseded": 1},
        disk_free_bytes=2**40,
        this_hour={"ok": 5, "notOk": 1, "notDecidable": 0},
    ),
    Health(
        timestamp_ms=1,
        fps=0.0,
        last_result_age_ms=20,
        camera="lost",
        outbox_depth=100_000,
        temperature_c=45.5,
        drift={"cause": None, "statistics": {"score": {"now": None, "share": 0.5}}},
        recalibration={"commandId": "1", "phase": "collecting", "progress": 0.25},
    ),
    PlcMessage(seq=7, part_id="SN-0815", evaluation=OK, score=12.0, valid=True, age_ms=41, speed_px_s=312.5),
    PlcMessage(evaluation=NOT_DECIDABLE, code=ResultCode.CAMERA_LOST, score=math.nan, valid=False, age_ms=100),
    CommandAck(command_id="17", command="pause", accepted=True, audit_hash="ab"),
    CommandAck(command_id=None, command="x", accepted=False, error="malformed"),
    CommandAck(command_id="18", command="recalibrate", accepted=True, progress=0.125, phase="collecting"),
    CommandAck(
        command_id="18",
        command="recalibrate",
        accepted=True,
        progress=1.0,
        figures={"parts": 200, "agreement": 1.0},
    ),
)


@pytest.mark.parametrize(("message", "line"), list(zip(SENT, LINES, strict=True)))
def test_messages_are_the_same_bytes_as_before(message: Result | Status, line: tuple[str, str]) -> None:
    topic, text = line
    assert isinstance(message, MESSAGES[topic])
    assert to_json(message.payload()) == text


@pytest.mark.parametrize(("topic", "text"), LINES)
def test_a_message_that_is_read_is_written_in_the_same_bytes(topic: str, text: str) -> None:
    printable = text.replace("\\udcff", "?")  # a lone surrogate has no UTF-8 and is refused
    assert to_json(MESSAGES[topic].read(json.loads(printable)).payload()) == printable


@pytest.mark.parametrize(("topic", "text"), LINES)
def test_keys_that_a_later_version_adds_are_ignored(topic: str, text: str) -> None:
    content = json.loads(text.replace("\\udcff", "?"))
    assert to_json(MESSAGES[topic].read({**content, "later": [1]}).payload()) == to_json(content)


# The schema


def test_the_schema_file_is_that_of_the_classes() -> None:
    assert (PACKAGE / "schema.json").read_text() == schema_text()


@pytest.mark.parametrize(("topic", "text"), LINES)
def test_messages_fit_the_schema(topic: str, text: str) -> None:
    assert problems(topic, json.loads(text)) == []


@pytest.mark.parametrize(("topic", "text"), LINES)
def test_a_message_that_lacks_a_key_does_not_fit_the_schema(topic: str, text: str) -> None:
    content = json.loads(text)
    for key in content.keys() - ABSENT_IF_NULL:
        assert problems(topic, {name: value for name, value in content.items() if name != key})


def test_the_schema_is_valid_and_describes_every_field() -> None:
    Draft202012Validator.check_schema(schema())
    for name, definition in schema()["$defs"].items():
        assert definition["description"], name
        for key, described in definition.get("properties", {}).items():
            assert described["description"], f"{name}.{key}"


def test_every_topic_of_a_station_has_a_schema() -> None:
    assert set(PUBLISHED["properties"]) == set(MESSAGES)


# The README


README = (PACKAGE / "README.md").read_text()


def examples() -> dict[str, object]:
    """Message by topic."""
    blocks = re.findall(r"^### `([^`]+)`$.*?^```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return {topic: json.loads(text) for topic, text in blocks}


def test_the_readme_shows_a_message_of_each_topic() -> None:
    shown = examples()
    assert set(shown) == set(MESSAGES)
    for topic, content in shown.items():
        assert content in [json.loads(text) for kind, text in LINES if kind == topic], topic


@pytest.mark.parametrize("definition", [name for name in PUBLISHED["$defs"] if name != "Evaluation"])
def test_the_readme_lists_every_field_with_its_type_and_unit(definition: str) -> None:
    table = "\n".join(["| key | type | meaning |", "| --- | --- | --- |", *field_rows(definition)])
    assert f"\n{table}\n\n" in README


def test_the_readme_names_the_messages_that_hold_no_objects_and_arrays() -> None:
    names = {topic: reference["$ref"].removeprefix("#/$defs/") for topic, reference in PUBLISHED["properties"].items()}
    kinds = {topic: " ".join(row.split(" | ")[1] for row in field_rows(name)) for topic, name in names.items()}
    *others, last = [f"`{topic}`" for topic in MESSAGES if not re.search("object|array", kinds[topic])]
    assert f"only {', '.join(others)} and {last} have none" in " ".join(README.split())


def test_the_readme_explains_every_result_code() -> None:
    explained = re.findall(r"^\| (\d+) \| (\w[\w ]+) \|", README, re.MULTILINE)
    codes = [(str(code.value), code.name.lower().replace("_", " ")) for code in ResultCode]
    assert explained == codes
