"""Bytes that the published definition reads, and the names and types that a host sees."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SparkplugPayloadError
from agent.messages.payloads import Health, Info, Status
from agent.messages.records import Alert, Evaluation, Payload, Result
from agent.sparkplug.metrics import GROUPS, Group, data_types, metrics_of
from agent.sparkplug.payload import DataType, Metric, decode, encode
from tests.support.sparkplug_host import BOOLEAN, DATE_TIME, DOUBLE, INT32, INT64, STRING, PublishedPayload, Said, read

TOPIC = "spBv1.0/g/DDATA/n/d"
A_RESULT = Result(seq=7, part_id=None, created_at_ms=17, evaluation=Evaluation.NOT_OK, score=3.5, threshold=2.0)
SAID: dict[Group, Payload] = {
    "result": A_RESULT.payload(),
    "alert": Alert(type="new", severity=500, cause="defect", started_at_ms=17).payload(),
    "status": Status(
        online=True, timestamp_ms=1, state="running", reason="", session_id="session", version="1"
    ).payload(),
    "info": Info(
        bundle_hash="b", threshold=2.0, false_reject_rate=0.001, backend="cpu", calibrated_at_ms=1, camera="0"
    ).payload(),
    "health": Health(
        timestamp_ms=1,
        fps=2.5,
        p50_ms={"total": 7.5},
        p99_ms={},
        captured=1,
        results=1,
        last_result_age_ms=None,
        camera="running",
        dropped={"superseded": 2},
        outbox_depth=0,
        disk_free_bytes=2**40,
        temperature_c=None,
        drift=None,
    ).payload(),
}
SAID_OTHERWISE = {"historical", "timestamp", "online"}
TYPES: dict[Group, str] = {
    "result": "resultId STRING, seq INT64, partId STRING, creationTime DATE_TIME, resultEvaluation INT32, "
    "resultCode INT32, score DOUBLE, threshold DOUBLE, margin DOUBLE, frames INT32, zone STRING, zones STRING, "
    "regions STRING, imageRef STRING, processingTimes STRING, speed DOUBLE, cameraFrame INT64, cameraTime INT64, "
    "isSimulated BOOLEAN",
    "alert": "alertId STRING, type STRING, severity INT32, cause STRING, startTime DATE_TIME, endTime DATE_TIME, "
    "resultId STRING",
    "status": "state STRING, reason STRING, sessionId STRING, version STRING",
    "info": "bundleHash STRING, threshold DOUBLE, falseRejectRate DOUBLE, backend STRING, backendReason STRING, "
    "calibratedAt DATE_TIME, camera STRING, zones STRING",
    "health": "fps DOUBLE, p50 STRING, p99 STRING, captured INT64, results INT64, lastResultAge INT64, camera STRING, "
    "dropped STRING, outboxDepth INT64, diskFree INT64, temperature DOUBLE, drift STRING, recalibration STRING, "
    "resultsPerSecond DOUBLE, ok INT64, notOk INT64, notDecidable INT64, missed INT64, outboxFaults INT64, "
    "thisHour STRING",
}
NEVER_NULL: dict[str, tuple[int, type]] = {
    "result/seq": (INT64, int),
    "result/resultId": (STRING, str),
    "result/creationTime": (DATE_TIME, int),
    "result/resultEvaluation": (INT32, int),
    "result/score": (DOUBLE, float),
    "result/regions": (STRING, str),
    "result/isSimulated": (BOOLEAN, bool),
    "alert/severity": (INT32, int),
    "alert/startTime": (DATE_TIME, int),
    "status/state": (STRING, str),
    "info/calibratedAt": (DATE_TIME, int),
    "health/fps": (DOUBLE, float),
    "health/diskFree": (INT64, int),
    "health/p50": (STRING, str),
}


def said(metrics: list[Metric], *, with_types: bool = True) -> dict[str, Said]:
    message = read(TOPIC, encode(metrics, 1, 0, with_types=with_types))
    return {metric.name: metric for metric in message.metrics}


def one(type_: DataType, value: float | str) -> object:
    return said([Metric(name="m", type=type_, value=value, timestamp_ms=5)])["m"].value


def test_the_published_definition_reads_what_is_written() -> None:
    metric = Metric(name="result/score", type=DataType.DOUBLE, value=3.5, timestamp_ms=1_700_000_000_123)
    late = Metric(name="b", type=DataType.BOOLEAN, value=True, timestamp_ms=2, is_historical=True)
    payload = PublishedPayload.FromString(encode([metric, late], 1_700_000_000_456, 255, with_types=True))
    assert (payload.timestamp, payload.seq) == (1_700_000_000_456, 255)
    first, second = payload.metrics
    assert (first.name, first.datatype, first.timestamp) == ("result/score", 10, 1_700_000_000_123)
    assert (first.double_value, first.is_historical, first.HasField("is_null")) == (3.5, False, False)
    assert (second.boolean_value, second.is_historical, second.datatype) == (True, True, 11)


def test_a_death_has_no_sequence_number() -> None:
    assert read(TOPIC, encode([], 1, None, with_types=True)).seq is None
    assert read(TOPIC, encode([], 1, 0, with_types=True)).seq == 0


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (DataType.INT32, 2**31 - 1),
        (DataType.INT32, -(2**31)),
        (DataType.INT64, 2**63 - 1),
        (DataType.INT64, -1),
        (DataType.DATE_TIME, 1_700_000_000_123),
        (DataType.DOUBLE, -1e300),
        (DataType.DOUBLE, 7),
        (DataType.BOOLEAN, False),
        (DataType.STRING, "Prüfung ✓"),
        (DataType.STRING, ""),
    ],
)
def test_values_survive(type_: DataType, value: float | str) -> None:
    assert one(type_, value) == value


def test_text_that_has_no_utf8_is_sent_all_the_same() -> None:
    assert one(DataType.STRING, "image\udcff.jpg") == "image?.jpg"


def test_no_value_is_null_and_keeps_its_type() -> None:
    metric = said([Metric(name="m", type=DataType.DOUBLE, value=None, timestamp_ms=5)])["m"]
    assert (metric.value, metric.datatype) == (None, DOUBLE)


def test_every_field_of_the_plain_messages_is_a_metric_with_the_same_name() -> None:
    for group, payload in SAID.items():
        assert list(data_types()[group]) == [key for key in payload if key not in SAID_OTHERWISE], group


@pytest.mark.parametrize("group", GROUPS)
def test_metrics_keep_the_names_and_types_that_hosts_know(group: Group) -> None:
    assert ", ".join(f"{key} {type_.name}" for key, type_ in data_types()[group].items()) == TYPES[group]


def test_metrics_have_the_type_of_their_values() -> None:
    for group, payload in SAID.items():
        for name, metric in said(metrics_of(group, payload, 17)).items():
            expected, python_type = NEVER_NULL.get(name, (metric.datatype, object))
            assert metric.datatype == expected, name
            assert isinstance(metric.value, python_type), name
            assert metric.timestamp_ms == 17
            if payload[name.partition("/")[2]] is not None:
                assert metric.value is not None, name
    assert set(NEVER_NULL) <= {f"{group}/{name}" for group in GROUPS for name in data_types()[group]}


def test_lists_and_tables_are_json() -> None:
    metrics = said(metrics_of("health", {**SAID["health"], "p99": {"total": float("nan")}}, 1))
    assert json.loads(str(metrics["health/p50"].value)) == {"total": 7.5}
    assert json.loads(str(metrics["health/p99"].value)) == {"total": None}


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_missing_or_of_another_type_is_null(group: Group) -> None:
    wrong = {name: "text" if type_ is not DataType.STRING else 3 for name, type_ in data_types()[group].items()}
    for payload in ({}, wrong, {"score": float("nan"), "fps": float("inf"), "seq": True, "isSimulated": 1}):
        assert {metric.value for metric in metrics_of(group, payload, 1)} == {None}


def test_a_command_is_read() -> None:
    payload = PublishedPayload(timestamp=1)
    payload.metrics.add(name="Node Control/Rebirth", alias=3, datatype=11, boolean_value=True)
    payload.metrics.add(name="a", datatype=16).dataset_value.columns.append("x")
    payload.metrics.add(name="b", string_value="text")
    payload.metrics.add(name="c", is_null=True)
    assert decode(payload.SerializeToString()) == {"Node Control/Rebirth": True, "a": None, "b": "text", "c": None}


@pytest.mark.parametrize("payload", [b"\xff", b"rebirth", b"\x12\x7f", b'{"Node Control/Rebirth": true}'])
def test_a_command_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(SparkplugPayloadError, match="are not a Sparkplug B payload"):
        decode(payload)


@given(payload=st.binary(max_size=60))
@settings(deadline=None, max_examples=300)
def test_no_command_breaks_the_reader(payload: bytes) -> None:
    try:
        decode(payload)
    except SparkplugPayloadError:
        return
