"""``shiftwatch-agent audit`` as people use it: what it prints, and how it ends."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from agent.audit.cli import FILE_NAME
from agent.audit.entry import format_line, next_entry
from agent.audit.log import AuditLog
from agent.cli import main
from tests.support.stations import write_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs ``shiftwatch-agent audit``; gives exit code, output and errors."""
    monkeypatch.setenv("TZ", "UTC")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "audit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "state" / FILE_NAME
    path.parent.mkdir()
    writer = AuditLog(path)
    for number in range(30):
        writer.append("threshold", by="Jürgen [red]", args={"value": number}, accepted=True)
    return path


def test_a_sound_log_is_reported_as_intact(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    code, out, _ = audit("verify", log)
    assert code == 0
    assert "30 entries" in out
    assert "intact" in out


def test_a_changed_log_ends_with_2_and_the_place(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b'"value":17', b'"value":71'))
    code, out, _ = audit("verify", log)
    assert code == 2
    assert "line 18: changed" in out


def test_a_kept_hash_shows_that_entries_were_cut_off(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    head = json.loads(lines[-1])["hash"]
    assert audit("verify", log, "--head", f" {head.upper()} ")[0] == 0
    log.write_bytes(b"".join(lines[:-1]))
    assert audit("verify", log)[0] == 0
    code, out, _ = audit("verify", log, "--head", head)
    assert code == 2
    assert "the entry with this hash is missing" in out


def test_a_head_that_is_not_a_hash_is_refused(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    code, _, err = audit("verify", log, "--head", "1234")
    assert code == 2
    assert "give all 64 digits" in err


def test_the_log_is_found_by_the_configuration(
    audit: Callable[..., tuple[int, str, str]], log: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tmp_path, 0, 1883)
    assert audit("verify", "--config", config)[0] == 0
    code, out, _ = audit("show", "--config", config, "--last", 1, "--json")
    assert code == 0
    assert out.encode() == log.read_bytes().splitlines(keepends=True)[-1]


def test_file_and_configuration_exclude_each_other(
    audit: Callable[..., tuple[int, str, str]], log: Path, tmp_path: Path
) -> None:
    code, _, err = audit("verify", log, "--config", tmp_path / "station.yaml")
    assert code == 2
    assert "both FILE and --config are given" in err


def test_the_log_of_the_only_station_here_needs_no_option(
    audit: Callable[..., tuple[int, str, str]], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = audit("verify")
    assert code == 2
    assert "there is no station here" in err
    write_config(tmp_path, tmp_path, 0, 1883)
    assert audit("verify")[0] == 0
    assert len(audit("show", "--last", 3)[1].splitlines()) == 4
    assert log.exists()


def test_a_missing_log_is_reported(audit: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for verb in ("verify", "show"):
        code, _, err = audit(verb, tmp_path / "none.jsonl")
        assert code == 2
        assert "cannot read the audit log" in err


def test_the_last_entries_are_shown_the_newest_last(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    code, out, _ = audit("show", log)
    assert code == 0
    rows = out.splitlines()
    assert rows[0].split() == ["when", "event", "by", "what"]
    assert len(rows) == 21
    assert '"value":29' in rows[-1]
    assert "Jürgen [red]" in rows[-1]


def test_arguments_that_were_not_given_are_not_shown(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    AuditLog(log).append("recalibrate", by=None, reason=None, args={"mode": "full", "seconds": None, "zone": None})
    row = audit("show", log)[1].splitlines()[-1]
    assert "null" not in row
    assert row.rstrip().endswith('args={"mode":"full"}')


def test_control_characters_are_shown_as_text(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    AuditLog(log).append("pause", by="\x1b[2J\nx", args="\x9b")
    out = audit("show", log)[1]
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "\\u001b[2J\\nx" in out


def test_damaged_lines_are_shown_as_such(audit: Callable[..., tuple[int, str, str]], log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b'"value":29', b'"value":92'))
    code, out, err = audit("show", log, "--last", 2)
    assert code == 0
    assert "damaged" in out.splitlines()[-1]
    assert "damaged lines among them: 1" in err
    assert len(audit("show", log, "--last", 2, "--json")[1].splitlines()) == 1


def test_an_entry_of_another_writer_with_an_odd_time_is_shown(
    audit: Callable[..., tuple[int, str, str]], log: Path
) -> None:

    log.write_bytes(format_line(next_entry(None, 10**18, "pause", {})))
    assert f"{10**18} ms" in audit("show", log)[1]
