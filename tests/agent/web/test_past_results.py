"""The statistics of a station in the browser and as CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.clock import now_ms
from agent.messages.records import Evaluation, ResultCode, to_json
from agent.statistics.history import FILE_NAME, History
from agent.web.past_results import PastResults
from tests.agent.statistics.test_history import result
from tests.support.chromium import Tab, require_chromium
from tests.support.pages import Served, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page of a station with 10 results an hour for two days: one NotOK, one blurred."""
    folder = tmp_path_factory.mktemp("state")
    start_ms = now_ms() - 48 * HOUR_MS
    with History(folder / FILE_NAME, 1000) as history:
        for number in range(480):
            kind = {0: Evaluation.NOT_OK, 1: Evaluation.NOT_DECIDABLE}.get(number % 10, Evaluation.OK)
            code = ResultCode.BLURRED if kind is Evaluation.NOT_DECIDABLE else ResultCode.NONE
            made = result(number, kind, start_ms + number * HOUR_MS // 10, code=code)
            history.put("result", made.record_id, "", to_json(made.payload()), made.created_at_ms)
    with serving(folder) as served:
        yield served


def asked(served: Served, path: str) -> tuple[int, Any]:
    response = served.ask(path)
    return response.status, json.loads(response.read())


def test_totals_and_causes_of_a_time_are_served(served: Served) -> None:
    status, content = asked(served, f"/statistics?by=day&since={now_ms() - 100 * HOUR_MS}")
    assert status == 200
    assert content["causes"] == [["defect", 48], ["blurred", 48]]
    assert sum(each["ok"] for each in content["periods"]) == 384
    assert {each["mean"] for each in content["periods"]} == {0.5}
    hours = asked(served, f"/statistics?by=hour&since={now_ms() - 10 * HOUR_MS}")[1]["periods"]
    assert 10 <= len(hours) <= 12
    shifts = asked(served, "/statistics?by=shift")[1]["periods"]
    assert {each["shift"] for each in shifts} == {"early", "late", "night"}


def test_periods_and_causes_are_of_the_same_newest_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_ms = now_ms()
    with History(tmp_path / FILE_NAME, 1000) as history:
        for hour in range(5):
            made = result(hour, Evaluation.NOT_OK, end_ms - hour * HOUR_MS)
            history.put("result", made.record_id, "", to_json(made.payload()), made.created_at_ms)
    past = PastResults(tmp_path, {})
    assert past.totals({})["leftOut"] == 0
    monkeypatch.setattr("agent.web.past_results._MOST_PERIODS", 3)
    content = past.totals({})
    assert (len(content["periods"]), content["leftOut"]) == (3, 2)
    assert content["causes"] == [("defect", 3)]
    assert len(past.totals_csv({}).splitlines()) == 1 + 5


def test_the_newest_scores_since_a_time_are_served(tmp_path: Path) -> None:
    with History(tmp_path / FILE_NAME, 5000) as history:
        for number in range(1500):
            made = replace(result(number, created_at_ms=number), score=float("nan") if number % 2 else float(number))
            history.put("result", made.record_id, "", to_json(made.payload()), made.created_at_ms)
    past = PastResults(tmp_path, {})
    assert past.scores({"since": "1490"}) == {"scores": [1498.0, 1496.0, 1494.0, 1492.0, 1490.0]}
    assert len(past.scores({})["scores"]) == 750
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.web.past_results._MOST_SCORES", 3)
        assert past.scores({}) == {"scores": [1498.0, 1496.0, 1494.0]}


@pytest.mark.parametrize("query", ["by=year", "since=x", "since=-1", f"until={10**30}"])
def test_what_makes_no_sense_is_refused(served: Served, query: str) -> None:
    for path in ("statistics", "statistics.csv", "results.csv", "scores"):
        assert asked(served, f"/{path}?{query}")[0] == 400


def test_figures_and_results_come_as_files_for_a_spreadsheet(served: Served) -> None:
    for path, rows in (("statistics.csv?by=day", 2), ("results.csv", 480)):
        response = served.ask(f"/{path}")
        assert response.headers["Content-Type"].startswith("text/csv")
        assert response.headers["Content-Disposition"] == f'attachment; filename="{path.partition("?")[0]}"'
        found = list(csv.DictReader(io.StringIO(response.read().decode())))
        assert rows <= len(found) <= rows + 1


def test_without_statistics_the_page_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        status, content = asked(served, "/statistics")
    assert status == 404
    assert "there are no statistics yet" in content["error"]


@pytest.mark.slow
def test_a_person_sees_hours_shifts_and_days(served: Served) -> None:
    require_chromium()
    with Tab() as tab:
        tab.look(390, 844)
        tab.open(f"http://127.0.0.1:{served.port}/stats.html")
        caption = "document.getElementById('caption').textContent"
        assert " parts, 48 rejected (" in tab.until(f"{caption}.includes('rejected') && {caption}")
        assert tab.ask("document.documentElement.scrollWidth") <= 390
        bars = tab.ask("document.querySelectorAll('#parts .bar.not-ok').length")
        assert bars == tab.ask("document.querySelectorAll('#figures tbody tr').length") >= 24
        for name, value in (("by", "shift"), ("days", "31")):
            tab.ask(
                f"{{ const it = document.querySelector('[name={name}]'); it.value = '{value}';"
                "it.dispatchEvent(new Event('input', {bubbles: true})) }"
            )
        tab.until(f"{caption}.startsWith('480 parts, 96 rejected')")
        assert "defect" in tab.ask("document.getElementById('causes').textContent")
        assert "night" in tab.ask("document.getElementById('figures').textContent")
        assert "by=shift" in tab.ask("document.getElementById('totals-csv').href")
        assert tab.complaints == []
