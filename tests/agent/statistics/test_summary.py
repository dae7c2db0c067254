"""A year of statistics is added up while a person waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from agent.statistics.history import FILE_NAME
from agent.statistics.summary import totals_between
from agent.statistics.tables import counts_between, reading
from tests.support.long_past import count_a_year

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVER = (0, 2**52)
SHIFTS = {"early": 6 * 60, "late": 14 * 60, "night": 22 * 60}
MOST_TIMES = 3
TURNS = 5


def fastest_s(work: Callable[[], object]) -> float:
    """Time of the processor, the shortest of several turns."""
    took_s = []
    for _ in range(TURNS):
        began_s = time.thread_time()
        work()
        took_s.append(time.thread_time() - began_s)
    return min(took_s)


@pytest.mark.slow
@pytest.mark.alone
def test_adding_up_a_year_takes_a_few_times_as_long_as_reading_it_at_most(tmp_path: Path) -> None:
    count_a_year(tmp_path / FILE_NAME)
    with reading(tmp_path / FILE_NAME) as database:
        (first, *_, last) = totals_between(database, *EVER, "day", SHIFTS).values()
        assert 0 < first.parts <= 4 * 96
        assert 0 < last.parts <= 4 * 96
        read_s = fastest_s(lambda: counts_between(database, *EVER))
        for by in ("hour", "shift", "day"):
            assert fastest_s(lambda: totals_between(database, *EVER, by, SHIFTS)) <= MOST_TIMES * read_s  # noqa: B023 - at once
