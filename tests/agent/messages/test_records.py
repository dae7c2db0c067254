from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BrokerRefusedError, ConfigError
from agent.messages.payloads import AlertState
from agent.messages.records import Alert, DefectRegion, Evaluation, Result, ResultCode, as_historical, to_json
from agent.messages.topics import Topics

ROOT = "acme/north/press/line2/cell4/vision/station1"


def a_result(score: float = 150.0, threshold: float = 100.0) -> Result:
    return Result(
        seq=7,
        part_id="A-7",
        created_at_ms=1_700_000_000_123,
        evaluation=Evaluation.NOT_OK,
        score=score,
        threshold=threshold,
        code=ResultCode.FRAME_UNUSABLE,
        regions=(DefectRegion(x=1, y=2, width=3, height=4, score=150.0),),
        image_ref="2023/11/14/7.jpg",
        processing_times_ms={"network": 12.5},
        speed_px_s=312.5,
        camera_frame=65_535,
        camera_time_us=1_790_000_000_000_000,
        result_id="f" * 32,
    )


def test_result_carries_the_keys_of_the_contract() -> None:
    assert a_result().payload() == {
        "resultId": "f" * 32,
        "seq": 7,
        "partId": "A-7",
        "creationTime": 1_700_000_000_123,
        "resultEvaluation": 2,
        "resultCode": 1,
        "score": 150.0,
        "threshold": 100.0,
        "margin": 0.5,
        "frames": 1,
        "regions": [{"x": 1, "y": 2, "width": 3, "height": 4, "score": 150.0, "zone": None}],
        "zone": None,
        "zones": {},
        "imageRef": "2023/11/14/7.jpg",
        "processingTimes": {"network": 12.5},
        "speed": 312.5,
        "cameraFrame": 65_535,
        "cameraTime": 1_790_000_000_000_000,
        "historical": False,
        "isSimulated": False,
    }


def test_alert_carries_the_keys_of_the_contract() -> None:
    alert = Alert(type="new", severity=900, cause="defects", started_at_ms=5, result_id="r", alert_id="a")
    assert alert.payload() == {
        "alertId": "a",
        "type": "new",
        "severity": 900,
        "cause": "defects",
        "startTime": 5,
        "endTime": None,
        "resultId": "r",
        "historical": False,
    }


def test_alert_state_lists_the_active_alerts() -> None:
    alert = Alert(type="new", severity=600, cause="dark", started_at_ms=5)
    assert AlertState(timestamp_ms=9, active=(alert,)).payload() == {"timestamp": 9, "active": [alert.payload()]}
    assert AlertState(timestamp_ms=9, active=()).payload()["active"] == []


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_score_that_is_no_number_becomes_null(score: float) -> None:
    payload = a_result(score=score).payload()
    assert payload["score"] is None
    assert payload["margin"] is None
    assert "NaN" not in to_json(payload)


def test_score_of_the_network_need_not_be_a_python_float() -> None:
    assert json.loads(to_json(a_result(score=np.float32(150.0)).payload()))["margin"] == 0.5


def test_margin_needs_a_threshold() -> None:
    assert a_result(threshold=0.0).margin is None


numbers = st.floats(allow_nan=True, allow_infinity=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def refuse_constant(name: str) -> None:
    raise AssertionError(name)


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_is_always_strict(payload: dict[str, object]) -> None:
    assert set(json.loads(to_json(payload), parse_constant=refuse_constant)) == set(payload)


def test_text_without_a_utf_8_form_does_not_stop_the_agent() -> None:
    text = to_json({"imageRef": "part-\udcff.jpg"})
    assert json.loads(text.encode()) == {"imageRef": "part-\udcff.jpg"}


@settings(deadline=None)
@given(score=numbers, threshold=numbers, part=st.none() | st.text())
def test_marking_a_record_historical_changes_nothing_else(score: float, threshold: float, part: str | None) -> None:
    payload = Result(
        seq=1, part_id=part, created_at_ms=1, evaluation=Evaluation.OK, score=score, threshold=threshold
    ).payload()
    assert json.loads(as_historical(to_json(payload))) == {**payload, "historical": True}


def test_each_result_and_each_alert_has_its_own_identity() -> None:
    first, second = (
        Result(seq=1, part_id=None, created_at_ms=1, evaluation=Evaluation.OK, score=1.0, threshold=2.0)
        for _ in range(2)
    )
    assert first.record_id != second.record_id
    assert len(first.result_id) == 32


def test_messages_of_one_alert_are_different_records() -> None:
    def record_id(kind: str, result_id: str) -> str:
        alert = Alert(
            type=kind,  # type: ignore[arg-type]
            severity=600,
            cause="c",
            started_at_ms=1,
            alert_id="a",
            result_id=result_id,
        )
        return alert.record_id

    assert len({record_id("new", "1"), record_id("update", "2"), record_id("update", "3"), record_id("end", "4")}) == 4


def test_topics_are_those_of_the_contract() -> None:
    topics = Topics(ROOT)
    assert topics.status == f"{ROOT}/status"
    assert topics.info == f"{ROOT}/info"
    assert topics.result == f"{ROOT}/result"
    assert topics.alert == f"{ROOT}/alert"
    assert topics.alert_state == f"{ROOT}/alert/state"
    assert topics.health == f"{ROOT}/health"


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ("a/+/c", "topic root 'a/+/c' holds '+'"),
        ("a/#", "topic root 'a/#' holds '#'"),
        ("/a", "topic root '/a' has an empty level"),
        ("", "topic root '' has an empty level"),
    ],
)
def test_root_that_no_broker_takes_is_refused(root: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Topics(root)
    assert caught.value.problems == (problem,)


def test_config_error_lists_every_problem() -> None:
    text = str(ConfigError(problems=["camera.fps: must be above 0", "mqtt.host: missing"]))
    assert "camera.fps: must be above 0" in text
    assert "mqtt.host: missing" in text


def test_refusal_keeps_the_words_of_the_broker() -> None:
    assert BrokerRefusedError(what="no", remedy="mend", reason="Not authorized").reason == "Not authorized"
