"""Statistics as rows of CSV, for spreadsheets; the first row has the names of the columns."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.messages.records import Evaluation
from agent.statistics.summary import cause_of
from calibration.plain_text import spreadsheet_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.statistics.summary import Total
    from agent.statistics.tables import OneResult

_TOTAL = ("from", "shift", "parts", "ok", "not_ok", "not_decidable", "rejects", "mean_score", "mean_threshold")
_RESULT = ("time", "result_id", "seq", "part_id", "verdict", "cause", "zone", "score", "threshold")
_VERDICTS: dict[int, str] = {
    Evaluation.OK: "ok",
    Evaluation.NOT_OK: "not_ok",
    Evaluation.NOT_DECIDABLE: "not_decidable",
}


def total_rows(found: Mapping[tuple[datetime, str], Total]) -> Iterator[list[Any]]:
    """A row for each hour, shift or day, with a column for each cause; see `summary.totals_between`."""
    causes = sorted({cause for total in found.values() for cause in total.causes})
    yield [*_TOTAL, "highest_ratio", *map(spreadsheet_cell, causes)]
    for (start, shift), total in found.items():
        verdicts = (total.verdicts[each] for each in _VERDICTS)
        figures = (f"{total.rejects:.6f}", total.mean_score, total.mean_threshold, total.highest)
        counts = (total.causes[cause] for cause in causes)
        yield [start.isoformat(), spreadsheet_cell(shift), total.parts, *verdicts, *figures, *counts]


def result_rows(results: Iterable[OneResult]) -> Iterator[list[Any]]:
    """A row for each result."""
    yield list(_RESULT)
    for each in results:
        time = datetime.fromtimestamp(each.created_at_ms / 1000).astimezone().isoformat(timespec="milliseconds")
        why = "" if each.evaluation == Evaluation.OK else cause_of(each.evaluation, each.code, "")
        texts = (spreadsheet_cell(each.part_id or ""), _VERDICTS.get(each.evaluation, "undefined"), why)
        zone = spreadsheet_cell(each.zone or "")
        yield [time, each.result_id, each.seq, *texts, zone, each.score, each.threshold]
