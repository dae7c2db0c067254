"""The page with the longest content that a station can have, on screens from a phone to a wall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.clock import now_ms
from agent.messages.records import Evaluation, Result, ResultCode, to_json
from agent.statistics.history import FILE_NAME, History
from tests.support.chromium import Tab, require_chromium, text
from tests.support.layout import PROBLEMS, WIDTHS, WITHOUT_NAME
from tests.support.pages import TOKEN, seen, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.waits

PART = "SN-4711-A very long part name of a supplier that never ends 0815/2026-11-30/left-hand-side "
ZONES = [f"zone-{number:02}-inner-seal" for number in range(12)]
CURVE = {
    "points": [[23456.789 * 10 ** (step / 20 - 1), 0.000123 if step > 20 else 0.5, 0.4, 0.4] for step in range(41)],
    "lowestRate": 0.000123,
    "leastDetection": 0.5,
    "defects": 120,
}
KINDS = [
    (Evaluation.OK, ResultCode.NONE),
    (Evaluation.NOT_OK, ResultCode.NONE),
    (Evaluation.NOT_DECIDABLE, ResultCode.FRAME_UNUSABLE),
    (Evaluation.OK, ResultCode.TOO_LATE),
]


def worst_state() -> dict[str, Any]:
    bundle = {
        "bundleHash": "0123456789abcdef" * 4,
        "threshold": 12345.678,
        "falseRejectRate": 0.001,
        "backend": "onnxruntime-cpu",
        "backendReason": "no CUDA driver",
        "calibratedAt": 1_790_000_000_000,
    }
    health = {
        "fps": 24.9,
        "p99": {"total": 12345.6},
        "results": 1_234_567,
        "ok": 1_200_000,
        "notOk": 34_000,
        "notDecidable": 567,
        "dropped": {"superseded": 12345, "skipped": 99999, "outbox_unwritable": 12},
        "camera": "running",
        "diskFree": 2**36,
        "temperature": 71.2,
    }
    camera = "rtsp://camera-of-line-2.plant.example:8554/stream/with/a/very/long/path?profile=1"
    refusal = "the broker refuses the connection: not authorised for this topic and this user name"
    return {
        "at": now_ms(),
        "state": "running",
        "reason": "",
        "info": {**bundle, "camera": camera, "zones": dict.fromkeys(ZONES, bundle)},
        "health": health,
        "alerts": [
            {"startTime": now_ms(), "cause": "drift: all parts since 23:29: check lamp and lens", "severity": 800},
            {"startTime": now_ms(), "cause": "defect", "severity": 900},
        ],
        "brokers": [
            {"name": "MQTT", "connected": False, "waiting": 99999, "error": refusal},
            {"name": "Sparkplug", "connected": True, "waiting": 0, "error": None},
        ],
        "thresholds": {zone: {"now": 12345.678, "base": 23456.789, "curve": CURVE} for zone in ZONES},
    }


def worst_result(number: int) -> Result:
    evaluation, code = KINDS[number % 4]
    return Result(
        seq=123_456 + number,
        part_id=f"{PART}{number}",
        created_at_ms=now_ms() - 1000 * (20 - number),
        evaluation=evaluation,
        code=code,
        score=98765.4 if evaluation is Evaluation.NOT_OK else 12345.6,
        threshold=23456.789,
        zone=ZONES[number % 12],
    )


@pytest.mark.slow
def test_nothing_overlaps_or_leaves_the_window_and_everything_has_a_name(tmp_path: Path) -> None:
    require_chromium()
    with serving(tmp_path) as served, Tab() as tab:
        served.page.use_state(worst_state)
        tab.look(1280, 900)
        tab.open(f"http://127.0.0.1:{served.port}/")
        results = [worst_result(number) for number in range(16)]
        for each in results:
            served.put(each)
        served.page.show(seen(results[-2], size=(480, 640)))
        tab.until("document.getElementById('stage').dataset.fetched >= 1")
        tab.until("document.querySelectorAll('#figures div').length > 15")
        tab.until("document.querySelectorAll('#last tr').length === 10")
        for shown in KINDS:
            latest = worst_result(16 + KINDS.index(shown))
            served.put(latest)
            tab.until(f"document.getElementById('detail').textContent.includes({latest.part_id!r})")
            for width, height in WIDTHS.items():
                tab.look(width, height)
                assert tab.ask(PROBLEMS) == [], (width, shown)
        assert tab.ask(WITHOUT_NAME) == []


@pytest.mark.slow
def test_the_unlocked_controls_do_not_overlap_or_leave_the_window(tmp_path: Path) -> None:
    """With a threshold that is proposed, which is said to be nearly blind, and a refusal."""
    require_chromium()
    with History(tmp_path / FILE_NAME, 1000) as history:
        for number in range(16):
            each = worst_result(number)
            history.put("result", each.result_id, "", to_json(each.payload()), each.created_at_ms)
    single = {"thresholds": {"": worst_state()["thresholds"][ZONES[0]]}}
    with serving(tmp_path) as served, Tab() as tab:
        for state in (worst_state(), {**worst_state(), **single}):
            served.page.use_state(lambda state=state: state)
            tab.open(f"http://127.0.0.1:{served.port}/")
            tab.until("document.querySelectorAll('#figures div').length > 10")
            tab.ask(f"document.getElementById('token').value = '{TOKEN}'")
            tab.ask("document.querySelector('#unlock button')?.click()")
            tab.until("!document.getElementById('unlocked').hidden")
            tab.until(f"document.getElementById('threshold-zone').options.length === {len(state['thresholds'])}")
            tab.ask("document.getElementById('threshold-slider').value = 900")
            tab.ask("document.getElementById('threshold-slider').dispatchEvent(new Event('input'))")
            tab.ask("document.getElementById('threshold-set').click()")
            tab.until(f"{text('threshold-answer')} && {text('threshold-blind')}")
            if "" in state["thresholds"]:
                tab.until(f"{text('threshold-effect')}.startsWith('Of the last 16 parts')")
            for width, height in WIDTHS.items():
                tab.look(width, height)
                assert tab.ask(PROBLEMS) == [], width
            assert tab.ask(WITHOUT_NAME) == []
