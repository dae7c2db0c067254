"""What a person sees before the threshold is set: what it would reject and find."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.clock import now_ms
from agent.messages.records import to_json
from agent.statistics.history import FILE_NAME, History
from agent.zones.threshold_curve import threshold_curve
from tests.agent.web.test_browser import click, enter
from tests.agent.web.test_layout import worst_state
from tests.agent.zones.test_threshold_curve import FORECAST
from tests.support.chromium import Tab, require_chromium, text
from tests.support.pages import TOKEN, Served, result, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.waits]

BASE = FORECAST.point.threshold
CURVE = threshold_curve(FORECAST, BASE, 0.5)
FEW = {**CURVE, "points": [[threshold, None, *found] for threshold, _, *found in CURVE["points"]]}
THUMB_PX = 16
TIMES = "\u00d7"
SINCE_MS = result(10).created_at_ms


def state_of(**zones: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """A station with these zones, or the only one, named ``only``."""
    named = {"" if name == "only" else name: thresholds for name, thresholds in zones.items()}
    versions = {
        name: [{"identity": "0" * 64, "at": SINCE_MS, "threshold": BASE, "by": None, "why": None}] for name in named
    }
    return lambda: {**worst_state(), "thresholds": named, "versions": versions}


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    require_chromium()
    with Tab() as tab:
        yield tab


def unlocked(tab: Tab, served: Served, state: Callable[[], dict[str, Any]]) -> None:
    served.page.use_state(state)
    tab.look(1280, 900)
    tab.open(f"http://127.0.0.1:{served.port}/")
    tab.until(f"{text('figures')}.includes('Outbox')")
    tab.ask("sessionStorage.clear()")
    tab.ask(f"{enter('token', TOKEN)}; {click('#unlock button')}")
    tab.until("!document.getElementById('unlocked').hidden")


def choose(tab: Tab, zone: str) -> None:
    choice = "document.getElementById('threshold-zone')"
    tab.ask(f"{choice}.value = '{zone}'; {choice}.dispatchEvent(new Event('change'))")


def said(tab: Tab, identity: str = "threshold-expected") -> str:
    return str(tab.ask(text(identity))).replace("\u00a0", " ")


def found(threshold: float) -> str:
    return f"{100 * FORECAST.found(threshold=threshold):.0f} %"


def good(threshold: float) -> str:
    rejected = FORECAST.rejected(threshold)
    assert rejected is not None
    return f"about {100 * rejected:.0f} % of good parts" if rejected > 0.1 else f"1 good part in {1 / rejected:,.2g}"


def test_a_person_sees_what_the_threshold_would_reject_and_find_before_it_is_set(tab: Tab, tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        unlocked(tab, served, state_of(only={"now": BASE, "base": BASE, "curve": CURVE}))
        now = f"about 1 good part in 100 is rejected and {found(BASE)} of the drawn defects are found"
        assert said(tab) == f"Now {now}."
        assert tab.ask("document.querySelector('#curve .proposed')") is None
        tab.ask(enter("threshold-slider", -300))
        lower = BASE * 10**-0.3
        assert found(lower) != found(BASE)
        assert said(tab) == (
            f"At this threshold {good(lower)} are rejected and {found(lower)} of the drawn defects are found "
            f"(now: about 1 good part in 100 and {found(BASE)})."
        )
        assert said(tab, "threshold-blind") == ""
        tab.ask("document.getElementById('threshold-slider').value = 100; document.activeElement.blur()")
        tab.ask("document.getElementById('threshold-slider').focus()")
        before = tab.ask("document.getElementById('threshold-number').value")
        tab.press("ArrowRight")
        tab.until(f"document.getElementById('threshold-number').value !== '{before}'")
        assert tab.ask("document.getElementById('threshold-slider').value") == "101"
        assert said(tab).startswith("At this threshold about 1 good part in ")
        tab.ask(enter("threshold-number", 2 * BASE))
        assert "at most 1 good part in 2,000 is rejected" in said(tab)
        tab.ask(enter("threshold-number", 20 * BASE))
        assert said(tab) == "", "no command may set it"
        assert [each for each in tab.complaints if "/archive?" not in each and "/scores?" not in each] == []


def test_the_thresholds_are_marked_on_the_curve_below_the_thumb_of_the_slider(tab: Tab, tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        now = BASE * 10**0.2
        unlocked(tab, served, state_of(only={"now": now, "base": BASE, "curve": CURVE}))
        tab.ask(enter("threshold-slider", -500))
        middle = "(({left, width}) => left + width / 2)"
        place = f"{middle}(document.querySelector('#curve .%s').getBoundingClientRect())"
        slider = "document.getElementById('threshold-slider').getBoundingClientRect()"
        left, right = (tab.ask(f"{slider}.{side}") for side in ("left", "right"))
        thumb = left + THUMB_PX / 2 + 0.25 * (right - left - THUMB_PX)
        assert tab.ask(place % "proposed") == pytest.approx(thumb, abs=2)
        assert tab.ask(place % "threshold") > tab.ask(place % "proposed")
        label = tab.ask("document.getElementById('curve').getAttribute('aria-label')").replace("\u00a0", " ")
        assert f"at 1 {TIMES} {found(now)} and at most 1 good part in 2,000" in label
        assert f"at 0.25 {TIMES} " in label
        tab.look(1280, 900, dark=True)
        colours = tab.ask(
            "['.found', '.rejected'].map((it) => getComputedStyle(document.querySelector('#curve ' + it)).stroke)"
        )
        assert len({*colours, "none"}) == 3


def test_a_threshold_that_finds_few_of_the_largest_defects_is_called_nearly_blind(tab: Tab, tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        unlocked(tab, served, state_of(only={"now": BASE, "base": BASE, "curve": CURVE}))
        shares = {step: FORECAST.found(sizes=[64], threshold=BASE * 10 ** (step / 20)) for step in range(21)}
        blind = next(step for step, share in shares.items() if share < 0.5)
        tab.ask(enter("threshold-slider", 50 * blind))
        warning = f"Nearly blind: only {100 * shares[blind]:.0f} % of the largest drawn defects are found."
        assert said(tab, "threshold-blind") == warning
        tab.ask(enter("threshold-slider", 0))
        assert said(tab, "threshold-blind") == ""


def test_each_zone_has_its_own_curve_and_a_bundle_without_one_says_so(tab: Tab, tmp_path: Path) -> None:
    thresholds = {"now": BASE, "base": BASE}
    zones: dict[str, dict[str, Any]] = {
        "rim": {**thresholds, "curve": CURVE},
        "label": {**thresholds, "curve": FEW},
        "old": {**thresholds, "curve": None},
    }
    with serving(tmp_path) as served:
        unlocked(tab, served, state_of(**zones))
        assert "is rejected and" in said(tab)
        choose(tab, "label")
        tab.ask(enter("threshold-slider", 200))
        assert said(tab) == (
            f"At this threshold {found(BASE * 10**0.2)} of the drawn defects are found (now: {found(BASE)}); "
            "good parts were too few to say how many are rejected."
        )
        choose(tab, "old")
        tab.ask(enter("threshold-slider", 200))
        assert said(tab) == said(tab, "threshold-blind") == ""
        assert "is not known: the calibration of this bundle drew no defects" in said(tab, "curve-caption")
        assert not tab.ask("document.getElementById('curve').checkVisibility()")
        choose(tab, "rim")
        assert said(tab).startswith("Now about 1 good part in 100 is rejected")
        assert tab.ask("document.getElementById('curve').checkVisibility()")


def test_the_last_parts_that_the_active_bundle_saw_are_counted(tab: Tab, tmp_path: Path) -> None:
    with History(tmp_path / FILE_NAME, 1000) as history:
        for number in range(30):
            made = result(number, score=BASE * (0.5 + 0.1 * (number - 10)) if number >= 10 else 1e9)
            history.put("result", made.record_id, "", to_json(made.payload()), made.created_at_ms)
    with serving(tmp_path) as served:
        unlocked(tab, served, state_of(only={"now": 1.05 * BASE, "base": BASE, "curve": None}))
        tab.ask(enter("threshold-number", 1.55 * BASE))
        above = f"Of the last 20 parts 9 lie above {float(f'{1.55 * BASE:.4g}'):g} (above the present one: 14)."
        tab.until(f"{text('threshold-effect')} === '{above}'")


def test_without_statistics_the_points_of_the_chart_are_counted(tab: Tab, tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        unlocked(tab, served, state_of(only={"now": BASE, "base": BASE, "curve": None}))
        served.put(replace(result(1, score=4.0), created_at_ms=now_ms()))
        tab.until(f"!{text('chart-caption')}.startsWith('No score')")
        tab.ask(enter("threshold-number", BASE / 3))
        tab.until(f"{text('threshold-effect')} === '1 of the 1 points in the chart lie above {BASE / 3:.4g}.'")
