"""The statistics of the station for browsers, and as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.messages.records import Evaluation
from agent.statistics.csv_rows import result_rows, total_rows
from agent.statistics.history import FILE_NAME
from agent.statistics.summary import totals_between
from agent.statistics.tables import newest_scores, reading, results_between
from agent.web.query_times import time_in
from agent.web.token_auth import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from agent.messages.records import Payload
    from agent.statistics.summary import By, Total

_MOST_PERIODS = 1000
_MOST_SCORES = 1000
_BY: dict[str, By] = {"hour": "hour", "shift": "shift", "day": "day"}


class PastResults:
    """Reads what the agent counts; from any thread.

    Args:
        state_dir: State folder of the station.
        shifts: Name of each shift -> its start, minutes after midnight.
    """

    def __init__(self, state_dir: Path, shifts: Mapping[str, int]) -> None:
        self._file = state_dir / FILE_NAME
        self._shifts = shifts

    def totals(self, asked: Mapping[str, str]) -> Payload:
        """Totals by hour, shift or day, oldest first, and their causes; at most the newest 1000 periods.

        Args:
            asked: As in an address: ``by``, ``since`` and ``until`` (ms since 1970).

        Raises:
            RefusedError: The query is not valid.
            StatisticsError: There are none, or they cannot be read.
        """
        found = self._found(asked)
        newest = list(found.items())[-_MOST_PERIODS:]
        causes = sum((total.causes for _, total in newest), Counter[str]())
        return {
            "periods": [_period(*each, total) for each, total in newest],
            "causes": causes.most_common(),
            "leftOut": len(found) - len(newest),
        }

    def totals_csv(self, asked: Mapping[str, str]) -> str:
        """The same as CSV, with all periods."""
        return _as_csv(total_rows(self._found(asked)))

    def results_csv(self, asked: Mapping[str, str]) -> str:
        """Single results as CSV, as far back as they are kept."""
        _, *span = _asked(asked)
        with reading(self._file) as database:
            return _as_csv(result_rows(results_between(database, *span)))

    def scores(self, asked: Mapping[str, str]) -> Payload:
        """Scores of the newest parts, newest first, at most 1000; of several zones each part has that of one.

        Args:
            asked: As in an address: ``since`` (ms since 1970).

        Raises:
            RefusedError: The query is not valid.
            StatisticsError: There are none, or they cannot be read.
        """
        _, since_ms, _ = _asked(asked)
        with reading(self._file) as database:
            return {"scores": newest_scores(database, since_ms, _MOST_SCORES)}

    def _found(self, asked: Mapping[str, str]) -> dict[tuple[datetime, str], Total]:
        by, since_ms, until_ms = _asked(asked)
        with reading(self._file) as database:
            return totals_between(database, since_ms, until_ms, by, self._shifts)


def _asked(asked: Mapping[str, str]) -> tuple[By, int, int]:
    try:
        return _BY[asked.get("by", "hour")], time_in(asked, "since", 0), time_in(asked, "until", now_ms())
    except (KeyError, ValueError) as error:
        raise RefusedError(400, f"it is not clear which statistics are asked for: {error}") from error


def _period(start: datetime, shift: str, total: Total) -> Payload:
    return {
        "at": round(start.timestamp() * 1000),
        "shift": shift,
        "ok": total.verdicts[Evaluation.OK],
        "notOk": total.verdicts[Evaluation.NOT_OK],
        "notDecidable": total.verdicts[Evaluation.NOT_DECIDABLE],
        "mean": total.mean_ratio,
        "highest": total.highest,
        "threshold": total.mean_threshold,
    }


def _as_csv(rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
