from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import CameraError
from agent.logs import log_crashes, set_up
from tests.support.stations import ROOT, closed_port, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import TextIOWrapper
    from pathlib import Path
    from typing import TextIO

    from agent.logs import LogFormat


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What a test sets up ends with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def begin(level: str, log_format: LogFormat, stream: TextIO, environment: dict[str, str]) -> bool:
    """As in a process in which nobody has set up logging yet."""
    logging.getLogger().handlers.clear()
    return set_up(level, log_format, ROOT, stream, environment)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIOWrapper]:
    with (tmp_path / "log").open("w+") as file:
        yield file


def journal_of(file: TextIOWrapper) -> dict[str, str]:
    status = os.fstat(file.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def say() -> None:
    log = logging.getLogger("agent.camera")
    log.debug("looking")
    log.info("camera %s is back", "3\nüß \ud800")
    log.warning("late")
    try:
        raise ValueError("two\nlines")  # noqa: EM101, TRY003, TRY301 - as a bug would
    except ValueError:
        log.exception("broken")
    log.critical("over")


def written(file: TextIOWrapper) -> list[str]:
    file.seek(0)
    return file.read().splitlines()


def test_text_has_time_and_level(file: TextIOWrapper) -> None:
    assert not begin("info", "text", file, {})
    logging.getLogger("agent").info("watching")
    (line,) = written(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    watching", line)


def test_each_line_in_the_journal_has_its_priority_and_no_time(file: TextIOWrapper) -> None:
    file.reconfigure(errors="backslashreplace")  # as stderr
    assert begin("debug", "text", file, journal_of(file))
    say()
    lines = written(file)
    assert lines[:4] == ["<7>looking", "<6>camera 3\\nüß \\ud800 is back", "<4>late", "<3>broken"]
    assert lines[-1] == "<2>over"
    assert all(line.startswith("<3>  ") for line in lines[4:-1])
    assert "<3>  ValueError: two" in lines
    assert "<3>  lines" in lines


FORGED = "2026-11-28 00:00:00,000 INFO    command threshold by chief"
STEERING = "\r\n\v\f\x00\x1b\x7f\x85\x9b\u2028\u2029\u202e\u2066\ufeff"


@given(before=st.text(), between=st.sampled_from(STEERING), after=st.text())
@pytest.mark.parametrize("environment", [{}, "journal"])
def test_no_text_from_outside_begins_a_line_or_steers_a_terminal(
    before: str, between: str, after: str, environment: dict[str, str] | str
) -> None:
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        begin("info", "text", file, journal_of(file) if environment else {})
        logging.getLogger("agent").warning("command %s refused: %s", "pause", f"{before}{between}{FORGED}{after}")
        try:
            raise CameraError(what=f"{before}{between}{FORGED}{after}", remedy="none")  # noqa: TRY301 - as in our code
        except CameraError as error:
            logging.getLogger("agent").exception("camera is lost: %s", error)  # noqa: TRY401 - as our own code does
        file.seek(0)
        text = file.read()
    lines = text.split("\n")
    assert not any(line.startswith((FORGED, f"<3>{FORGED}", f"<4>{FORGED}")) for line in lines)
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if line and not line.removeprefix("<3>").startswith("  ")]) == 2


def test_an_error_in_the_log_is_one_line_with_its_remedy(file: TextIOWrapper) -> None:
    begin("info", "text", file, {})
    logging.getLogger("agent").warning("lost: %s", CameraError(what="no frame", remedy="check its cable"))
    (line,) = written(file)
    assert line.endswith("lost: no frame; check its cable")


def test_what_ends_a_thread_or_the_process_is_logged(file: TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    begin("info", "json", file, {})
    log_crashes()
    thread = threading.Thread(target=int, args=(f"\n{FORGED}",))
    thread.start()
    thread.join()
    error = ValueError(f"\x1b{FORGED}")
    sys.excepthook(ValueError, error, None)
    crashes = [json.loads(line) for line in written(file)]
    assert [crash["level"] for crash in crashes] == ["critical"] * 2
    assert all(FORGED in crash["exception"] for crash in crashes)


@pytest.mark.parametrize("elsewhere", ["1:1", "", "nonsense"])
def test_a_log_that_was_led_away_from_the_journal_is_for_people(file: TextIOWrapper, elsewhere: str) -> None:
    assert not begin("info", "text", file, {"JOURNAL_STREAM": elsewhere})
    logging.getLogger("agent").info("watching")
    assert written(file)[0].endswith("INFO    watching")


def test_a_stream_that_is_no_file_is_not_the_journal() -> None:
    stream = io.StringIO()
    assert not begin("info", "text", stream, {"JOURNAL_STREAM": "1:1"})


def test_json_is_one_object_a_line_whatever_is_said(file: TextIOWrapper) -> None:
    assert begin("info", "json", file, journal_of(file))
    say()
    said: list[dict[str, Any]] = [json.loads(line) for line in written(file)]
    assert [(one["level"], one["message"]) for one in said] == [
        ("info", "camera 3\nüß \ud800 is back"),
        ("warning", "late"),
        ("error", "broken"),
        ("critical", "over"),
    ]
    assert {one["station"] for one in said} == {ROOT}
    assert {one["logger"] for one in said} == {"agent.camera"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"]) for one in said)
    assert said[2]["exception"].endswith("ValueError: two\nlines")
    assert ["exception" in one for one in said] == [False, False, True, False]


def test_less_is_said_when_less_is_wished(file: TextIOWrapper) -> None:
    begin("warning", "json", file, {})
    say()
    assert [json.loads(line)["level"] for line in written(file)] == ["warning", "error", "critical"]


def run(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", "run", "--config", str(config), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own program


@pytest.mark.slow
def test_an_agent_whose_log_is_json_says_nothing_else(bundle: Path, tmp_path: Path) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(3))
    ended = run(write_config(tmp_path, bundle, parts, closed_port(), log={"format": "json"}))
    assert (ended.returncode, ended.stdout) == (0, "")
    said = [json.loads(line) for line in ended.stderr.splitlines()]
    assert said[-1]["message"].startswith("stopped: 3 frames captured")
    assert {one["station"] for one in said} == {ROOT}
    assert all(one["level"] != "debug" for one in said)


@pytest.mark.slow
def test_the_error_that_ends_an_agent_is_in_a_log_that_programs_read(bundle: Path, tmp_path: Path) -> None:
    ended = run(write_config(tmp_path, bundle, tmp_path / "nowhere", closed_port(), log={"format": "json"}))
    assert ended.returncode == 2
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["level"] == "critical"
    assert "no video or image folder at" in last["message"]
    assert "check the path" in last["message"]
