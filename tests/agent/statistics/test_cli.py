"""``shiftwatch-agent stats`` as people use it."""

from __future__ import annotations

import csv
import io
import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest

from agent.cli import main
from agent.clock import now_ms
from agent.messages.records import Evaluation, ResultCode
from agent.statistics.history import FILE_NAME, History
from agent.statistics.tables import QUARTER_MS, opened
from tests.agent.statistics.test_history import HOUR_MS, put, result
from tests.support.stations import write_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Command = "Callable[..., tuple[int, str, str]]"


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """With 30 results an hour for a day; every tenth is not OK."""
    (tmp_path / "state").mkdir()
    start_ms = now_ms() - 24 * HOUR_MS
    with History(tmp_path / "state" / FILE_NAME, 1000) as history:
        for number in range(24 * 30):
            at_ms = start_ms + (number * HOUR_MS) // 30
            if number % 10:
                put(history, result(number, created_at_ms=at_ms))
            elif number % 20:
                put(history, result(number, Evaluation.NOT_OK, at_ms, zone="lid"))
            else:
                put(history, result(number, Evaluation.NOT_DECIDABLE, at_ms, code=ResultCode.BLURRED))
    return write_config(tmp_path, tmp_path / "bundle", tmp_path, 1883)


@pytest.fixture
def stats(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], use_zone: Callable[[str], None]
) -> Callable[..., tuple[int, str, str]]:
    """Runs ``shiftwatch-agent stats``; gives exit code, output and errors."""
    use_zone("UTC")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "stats", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capfd.readouterr())

    return run


def test_hours_are_shown_in_80_columns_with_the_causes_the_most_frequent_first(
    stats: Callable[..., tuple[int, str, str]], station: Path
) -> None:
    code, out, _ = stats("--config", station, "--since", "12h")
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split() == ["from", "parts", "OK", "NotOK", "NotDec.", "rejects", "score/thr.", "highest"]
    assert max(map(len, out.splitlines())) <= 80
    hours = [row.split() for row in rows if "%" in row and ":" in row]
    assert 12 <= len(hours) <= 14
    assert hours[5][2:4] == ["30", "27"]
    assert {row.split("%")[1].strip() for row in rows[-2:]} == {"defect in lid", "blurred"}


@pytest.mark.parametrize(("by", "least"), [("shift", 3), ("day", 1)])
def test_csv_has_the_same_figures_for_a_spreadsheet(
    stats: Callable[..., tuple[int, str, str]], station: Path, by: str, least: int
) -> None:
    code, out, _ = stats("--config", station, "--by", by, "--csv", "--since", "2d")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) >= least
    assert sum(int(row["parts"]) for row in rows) == 24 * 30
    assert sum(int(row["defect in lid"]) for row in rows) == sum(int(row["blurred"]) for row in rows) == 36
    assert {row["shift"] for row in rows} == ({"early", "late", "night"} if by == "shift" else {""})


def test_single_results_come_as_csv(stats: Callable[..., tuple[int, str, str]], station: Path) -> None:
    code, out, _ = stats("--config", station, "--results", "--since", "2h")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert 59 <= len(rows) <= 60
    assert rows[-1]["part_id"] == f"P-{24 * 30 - 1}"
    assert {row["verdict"] for row in rows} == {"ok", "not_ok", "not_decidable"}
    assert {row["cause"] for row in rows} == {"", "defect", "blurred"}
    assert {row["score"] for row in rows} == {"50.0"}


def test_without_results_or_a_file_it_says_so(
    stats: Callable[..., tuple[int, str, str]], station: Path, tmp_path: Path
) -> None:
    assert "no results in this time" in stats("--config", station, "--since", "5d", "--until", "4d")[1]
    (tmp_path / "state" / FILE_NAME).unlink()
    code, _, err = stats("--config", station)
    assert code == 2
    assert "there are no statistics yet" in err
    (tmp_path / "state" / FILE_NAME).write_bytes(b"no database" * 1000)
    assert "cannot read" in stats("--config", station)[2]


@pytest.mark.parametrize(
    ("shifts", "is_right"),
    [
        ({"a": "06:00", "b": 14 * 60}, True),
        ({"all": "00:00"}, True),
        ({"a": "06:10"}, False),
        ({"a": "24:00"}, False),
        ({"a": "06:00", "b": "06:00"}, False),
        ({}, False),
        ("early", False),
    ],
)
def test_shifts_begin_at_quarters_of_an_hour_each_at_another(
    stats: Callable[..., tuple[int, str, str]], station: Path, tmp_path: Path, shifts: object, *, is_right: bool
) -> None:
    assert station.exists()
    config = write_config(tmp_path, tmp_path / "bundle", tmp_path, 1883, statistics={"shifts": shifts})
    code, _, err = stats("--config", config, "--by", "shift")
    assert code == (0 if is_right else 2)
    assert is_right or "statistics.shifts" in err


def test_a_year_with_four_reasons_in_each_quarter_of_an_hour_takes_a_few_mebibytes(tmp_path: Path) -> None:
    path = tmp_path / "year.sqlite"
    database = opened(path)
    first = now_ms() // QUARTER_MS - 365 * 96
    rows = ((first + quarter, 3, code, "", 225, 225, 1e4, 1e4, 0.9) for quarter in range(365 * 96) for code in range(4))
    database.execute("BEGIN")
    database.executemany("INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert path.stat().st_size < 10 * 2**20
    with sqlite3.connect(path) as read:
        plan = str(read.execute("EXPLAIN QUERY PLAN SELECT * FROM counts WHERE quarter BETWEEN 1 AND 2").fetchall())
    assert "SEARCH" in plan
