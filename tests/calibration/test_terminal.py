"""Text from outside on a terminal: as data, and never lost."""

from __future__ import annotations

import io
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from calibration.plain_text import from_spreadsheet_cell, printable, spreadsheet_cell
from calibration.terminal import console, error_console, escape, progress_bar

ANY_TEXT = st.text(st.characters())


def test_where_no_bar_is_seen_a_long_step_says_once_how_much_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with error_console.capture() as capture, progress_bar() as progress:
        for done, at_s in ((1000, 0), (1010, 15), (1100, 30), (1200, 60)):
            now[0] = 100.0 + at_s
            progress("training", done, 20_000)
            progress("reading", done // 100, 20)  # stands still
    said = [line for line in capture.get().splitlines() if "left" in line]
    assert said == ["training: 1,100 of 20,000, about 1:34:30 left", "reading: 11 of 20, about 0:04:30 left"]


@given(ANY_TEXT)
def test_printable_text_is_one_line_without_anything_that_steers(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text).splitlines()) <= 1
    assert printable(text).encode().decode() == printable(text)


@given(ANY_TEXT)
def test_whatever_is_printed_steers_no_terminal(text: str) -> None:
    with console.capture() as capture:
        console.print(f"[bold]{escape(text)}[/]", soft_wrap=True)
        console.print(Text(text), soft_wrap=True)
        table = Table("name")
        table.add_row(Text(text))
        console.print(table)
    assert capture.get().replace("\n", "").isprintable()


@pytest.mark.parametrize("text", ["[red]x", "a\\[red]x", "x\\", ":smile:", "[/]", "[link=http://x]"])
def test_text_with_markup_is_printed_as_it_is(text: str) -> None:
    with console.capture() as capture:
        console.print(f"[bold]{escape(text)}[/]", soft_wrap=True)
    assert capture.get() == f"{text}\n"


def test_a_terminal_without_a_letter_gets_its_number() -> None:
    code = "from calibration.terminal import console, run; run(lambda: console.print('fl\\xfcgel \\udcff', '\\u2713'))"
    ended = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, b"fl\\xfcgel \\udcff \\u2713\n"), ended.stderr


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "\uff1d1", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_computes_nothing(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"


@given(ANY_TEXT)
def test_a_cell_for_a_spreadsheet_gives_its_text_back(text: str) -> None:
    cell = spreadsheet_cell(text)
    assert from_spreadsheet_cell(cell) == printable(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert io.StringIO(cell, newline="").read() == cell
