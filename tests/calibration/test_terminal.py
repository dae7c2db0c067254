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

from calibration.plain_text import counted, from_spreadsheet_cell, printable, rounded, spreadsheet_cell
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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_step_that_needs_fewer_rounds_than_it_announced_ends_as_complete(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    monkeypatch.setattr(error_console, "_force_terminal", is_terminal)
    with error_console.capture() as capture, progress_bar() as progress:
        for done in range(876):
            progress("looking", done, 2248)
    last = [line for line in capture.get().splitlines() if "looking" in line][-1]
    assert "875/875" in last
    assert "2248" not in last


def test_a_step_that_fails_keeps_how_far_it_came() -> None:
    with error_console.capture() as capture, pytest.raises(KeyError), progress_bar() as progress:  # noqa: PT012
        progress("looking", 875, 2248)
        raise KeyError
    assert " 875/2248" in capture.get().splitlines()[-1]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(99.96, 2, "100"), (0.995, 2, "0.99"), (123_456.0, 3, "123,000"), (1.234e-3, 2, "0.0012"), (2.0, 3, "2")],
)
def test_a_rounded_number_has_no_exponent(value: float, digits: int, text: str) -> None:
    assert rounded(value, digits) == text


@given(st.floats(1e-4, 1e12), st.integers(1, 6))
def test_a_rounded_number_is_the_nearest_with_so_few_digits(value: float, digits: int) -> None:
    text = rounded(value, digits)
    assert "e" not in text
    assert float(text.replace(",", "")) == float(f"{value:.{digits}g}")


def test_a_count_has_its_noun_in_the_right_number() -> None:
    assert [counted(each, "image") for each in (0, 1, 2248)] == ["0 images", "1 image", "2248 images"]
    assert [counted(each, "entry", ",") for each in (1, 2248)] == ["1 entry", "2,248 entries"]


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
