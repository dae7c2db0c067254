"""The page with the longest content that a station can have, on screens from a phone to a wall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.clock import now_ms
from agent.messages.records import Evaluation, Result, ResultCode
from tests.support.chromium import Tab, require_chromium
from tests.support.pages import seen, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.waits

WIDTHS = {360: 740, 390: 844, 768: 1024, 1024: 768, 1280: 900, 1400: 900, 1920: 1080}
PART = "SN-4711-A very long part name of a supplier that never ends 0815/2026-11-30/left-hand-side "
ZONES = [f"zone-{number:02}-inner-seal" for number in range(12)]
KINDS = [
    (Evaluation.OK, ResultCode.NONE),
    (Evaluation.NOT_OK, ResultCode.NONE),
    (Evaluation.NOT_DECIDABLE, ResultCode.FRAME_UNUSABLE),
    (Evaluation.OK, ResultCode.TOO_LATE),
]
PROBLEMS = """(() => {
  const problems = [], width = document.documentElement.clientWidth, boxes = [];
  const isShown = (it) => it.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const name = (it) => (it.nodeType === 3 ? it.textContent.trim().slice(0, 30) : it.id || it.className || it.tagName);
  const whole = document.documentElement.scrollWidth;
  if (whole > width) problems.push(`it is ${whole} pixels wide`);
  const visible = (box, it) => {
    for (let outer = it.parentElement; outer; outer = outer.parentElement) {
      if (getComputedStyle(outer).overflow === "visible") continue;
      const edge = outer.getBoundingClientRect();
      return { left: Math.max(box.left, edge.left), right: Math.min(box.right, edge.right),
        top: Math.max(box.top, edge.top), bottom: Math.min(box.bottom, edge.bottom) };
    }
    return box;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const it = texts.currentNode;
    if (!it.textContent.trim() || !isShown(it.parentElement)) continue;
    if (it.parentElement.closest(".stage, .shapes, option, noscript, script")) continue;
    const range = document.createRange();
    range.selectNodeContents(it);
    for (const box of range.getClientRects()) boxes.push([visible(box, it), it]);
  }
  for (const it of document.querySelectorAll("input, button, select, .stage, .chart, #verdict > .shape")) {
    if (isShown(it)) boxes.push([it.getBoundingClientRect(), it]);
  }
  const real = boxes.filter(([box]) => box.right > box.left && box.bottom > box.top);
  for (const [box, it] of real) if (box.left < -1 || box.right > width + 1) problems.push(`${name(it)} is outside`);
  real.forEach(([one, first], place) => real.slice(place + 1).forEach(([other, second]) => {
    if (first === second || first.contains(second) || second.contains(first)) return;
    const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    if (across > 1.5 && down > 4) problems.push(`${name(first)} overlaps ${name(second)}`);
  }));
  return problems.slice(0, 8);
})()"""
WITHOUT_NAME = """[...document.querySelectorAll("input, button, select, img, canvas, svg[role=img]")]
  .filter((it) => it.checkVisibility() && !it.closest("[aria-hidden=true]"))
  .filter((it) => !(it.labels?.length || it.ariaLabel || it.alt || it.title || it.textContent.trim()
    || it.getAttribute("aria-labelledby")))
  .map((it) => it.id || it.outerHTML.slice(0, 80))"""


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
        "thresholds": {zone: {"now": 12345.678, "base": 23456.789} for zone in ZONES},
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
