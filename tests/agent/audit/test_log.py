"""The audit log: nothing is lost by a power cut, and nothing is changed unseen."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.audit import entry as audit_line
from agent.audit.entry import lines_backwards, newest_lines, older_file, parse_line
from agent.audit.log import AuditLog
from agent.audit.verify import verify
from agent.errors import AuditError
from agent.state_lock import state_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.audit.verify import Findings

ZEROS = "0" * 64
ENTRIES = 6


def written(path: Path, count: int = ENTRIES) -> list[bytes]:
    """The lines of a log with so many entries."""
    log = AuditLog(path)
    for number in range(count):
        log.append("threshold", by=f"Jürgen {number}", args={"value": number + 0.5}, accepted=True)
    return path.read_bytes().splitlines(keepends=True)


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def place(found: Findings) -> tuple[int, str] | None:
    return None if found.broken is None else (found.broken.line, found.broken.reason)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture(scope="module")
def lines() -> Iterator[list[bytes]]:
    with TemporaryDirectory() as folder:
        yield written(Path(folder) / "audit.jsonl")


@pytest.fixture
def check(path: Path) -> Callable[..., Findings]:
    def verify_lines(changed: Sequence[bytes], head: str | None = None) -> Findings:
        path.write_bytes(b"".join(changed))
        return verify(path, head)

    return verify_lines


def test_an_entry_is_one_line_of_canonical_json_that_holds_its_own_hash_and_that_of_the_line_before(path: Path) -> None:
    log = AuditLog(path)
    hashes = [log.append("pause", by="line 2"), log.append("resume", by="Jürgen", args={"b": [1, None], "a": 0.1})]
    first, second = entries(path)
    assert [first["previous"], second["previous"]] == [ZEROS, hashes[0]]
    assert [first["seq"], second["seq"]] == [1, 2]
    assert [first["hash"], second["hash"]] == hashes
    for line, entry in zip(path.read_bytes().splitlines(), (first, second), strict=True):
        assert line == json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        content = {key: value for key, value in entry.items() if key != "hash"}
        assert (
            entry["hash"]
            == sha256(
                json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            ).hexdigest()
        )
    assert second["args"] == {"a": 0.1, "b": [1, None]}
    assert "Jürgen".encode() in path.read_bytes()


def test_an_entry_is_flushed_before_its_hash_is_returned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(path)
    flushed: list[bytes] = []
    fsync = os.fsync

    def noting_fsync(number: int) -> None:
        fsync(number)
        flushed.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", noting_fsync)
    told = log.append("pause")
    assert flushed[0] == path.read_bytes()
    assert told.encode() in flushed[0]


def test_the_chain_continues_when_the_file_is_opened_again(path: Path) -> None:
    written(path, 3)
    written(path, 2)
    assert [entry["seq"] for entry in entries(path)] == [1, 2, 3, 4, 5]
    found = verify(path)
    assert (found.entries, found.is_sound, found.recoveries) == (5, True, 0)
    assert found.first_ms == entries(path)[0]["time"]
    assert found.last_ms == entries(path)[-1]["time"]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\ud800", "a\nb", {"\ud800": 1}, {1: (2, 3)}, 1e300, -0.0, 10**40, "\u2028"]
)
def test_a_value_that_json_lacks_is_written_and_verified(path: Path, value: object) -> None:
    AuditLog(path).append("trigger", args=value)
    assert verify(path).is_sound
    AuditLog(path).append("trigger", args=value)
    assert (verify(path).entries, len(path.read_bytes().splitlines())) == (2, 2)


def test_a_field_that_would_replace_one_of_the_log_s_own_is_refused(path: Path) -> None:
    with pytest.raises(TypeError, match="hash, seq"):
        AuditLog(path).append("pause", seq=7, hash="")
    assert path.read_bytes() == b""


def test_an_entry_nested_too_deeply_is_refused_and_the_next_is_written(path: Path) -> None:
    log = AuditLog(path)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(AuditError, match="nested too deeply"):
        log.append("trigger", args=deep)
    log.append("pause")
    assert (verify(path).entries, verify(path).is_sound) == (1, True)


def test_threads_that_write_at_the_same_time_make_one_chain(path: Path) -> None:
    log = AuditLog(path)
    told: list[str] = []
    threads = [threading.Thread(target=lambda: told.extend(log.append("pause") for _ in range(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (verify(path).entries, verify(path).is_sound) == (80, True)
    assert sorted(told) == sorted(entry["hash"] for entry in entries(path))


def test_only_the_end_of_a_long_log_is_read_to_continue_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(path, 200)
    seen: list[bytes] = []
    parse_line = audit_line.parse_line

    def noting_parse_line(line: bytes) -> object:
        seen.append(line)
        return parse_line(line)

    monkeypatch.setattr("agent.audit.log.parse_line", noting_parse_line)
    AuditLog(path).append("pause")
    assert seen == lines[-1:]
    assert verify(path).entries == 201


@given(
    content=st.lists(st.sampled_from([b"", b"a", b"bc", b"def" * 30]), max_size=12).map(b"\n".join),
    block=st.integers(1, 40),
)
def test_lines_come_backwards_whatever_the_blocks_are(content: bytes, block: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_line, "_BLOCK", block)
        file = Path(folder) / "lines"
        file.write_bytes(content)
        with file.open("rb") as opened:
            assert list(lines_backwards(opened)) == content.splitlines(keepends=True)[::-1]


# A power cut


def test_a_line_torn_at_any_byte_is_kept_and_the_log_continues(path: Path, lines: list[bytes]) -> None:
    whole, last = b"".join(lines[:-1]), lines[-1]
    for kept in range(1, len(last) - 1):
        path.write_bytes(whole + last[:kept])
        torn = verify(path)
        assert place(torn) == (ENTRIES, "torn")
        told = AuditLog(path).append("pause")
        content = path.read_bytes()
        assert content.startswith(whole + last[:kept] + b"\n")
        recovered, following = map(json.loads, content.splitlines()[-2:])
        assert recovered["event"] == "recovered"
        assert recovered["previous"] == json.loads(lines[-2])["hash"]
        assert (recovered["lostBytes"], recovered["lostSha256"]) == (kept, sha256(last[:kept]).hexdigest())
        assert following["previous"] == recovered["hash"]
        found = verify(path, told)
        assert (found.broken, found.recoveries, found.entries) == (None, 1, ENTRIES + 1), kept
        assert found.head_found


def test_a_line_that_lacks_only_its_newline_is_a_whole_entry(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines)[:-1])
    AuditLog(path).append("pause")
    found = verify(path)
    assert (found.broken, found.recoveries, found.entries) == (None, 0, ENTRIES + 1)


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\r", b"\xff\xfe", b"[]", b"{}", b" "])
def test_any_rubbish_that_a_power_cut_leaves_is_recovered(path: Path, lines: list[bytes], tail: bytes) -> None:
    path.write_bytes(b"".join(lines) + tail)
    AuditLog(path)
    assert (verify(path).broken, verify(path).recoveries) == (None, 1)


def test_a_log_of_one_torn_line_starts_at_the_beginning(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(lines[0][:20])
    AuditLog(path).append("pause")
    assert [entry["seq"] for entry in map(json.loads, path.read_bytes().splitlines()[1:])] == [1, 2]
    assert (verify(path).broken, verify(path).recoveries) == (None, 1)


def test_several_power_cuts_are_several_recoveries(path: Path, lines: list[bytes]) -> None:
    for number in (2, 4):
        with path.open("ab") as file:
            file.write(lines[0][: 30 * number])
        AuditLog(path).append("pause")
    assert (verify(path).broken, verify(path).recoveries) == (None, 2)


def test_a_damaged_last_line_is_kept_and_reported_although_the_log_continues(path: Path, lines: list[bytes]) -> None:
    damaged = lines[-1].replace(b"true", b"nope")
    path.write_bytes(b"".join(lines[:-1]) + damaged)
    AuditLog(path).append("pause")
    found = verify(path)
    assert place(found) == (ENTRIES, "changed")
    assert found.entries == ENTRIES + 1
    recovered = json.loads(path.read_bytes().splitlines()[-2])
    assert (recovered["event"], recovered["torn"]) == ("recovered", False)
    assert recovered["previous"] == json.loads(lines[-2])["hash"]


def test_damage_before_a_torn_line_is_reported_although_both_were_recovered(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines[:-1]) + lines[-1].replace(b"true", b"nope") + b'{"torn')
    AuditLog(path).append("pause")
    assert place(verify(path)) == (ENTRIES, "changed")
    assert verify(path).recoveries == 0


def test_a_recovery_does_not_excuse_another_line(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines) + b'{"torn')
    AuditLog(path).append("pause")
    *before, torn, recovered, after = path.read_bytes().splitlines(keepends=True)
    for changed, where in (
        ([*before, recovered, after], (ENTRIES + 1, "removed")),
        ([*before, torn, torn, recovered, after], (ENTRIES + 1, "changed")),
        ([*before, b'{"tarn\n', recovered, after], (ENTRIES + 1, "changed")),
        ([*before, torn, after], (ENTRIES + 1, "changed")),
        ([*before[:-1], torn, recovered, after], (ENTRIES + 1, "removed")),
    ):
        path.write_bytes(b"".join(changed))
        assert place(verify(path)) == where


# Tampering


@given(data=st.data())
def test_any_changed_byte_is_found(lines: list[bytes], data: st.DataObject) -> None:
    content = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        path.write_bytes(content)
        found = verify(path)
    line = b"".join(lines)[:at].count(b"\n") + 1
    assert found.broken is not None
    assert found.broken.line == line
    assert found.broken.reason in {"changed", "torn"}


@pytest.mark.parametrize("at", range(ENTRIES - 1))
def test_a_removed_line_is_found(check: Callable[..., Findings], lines: list[bytes], at: int) -> None:
    assert place(check([*lines[:at], *lines[at + 1 :]])) == (at + 1, "removed")


@pytest.mark.parametrize("at", range(ENTRIES))
@pytest.mark.parametrize("again", range(ENTRIES))
def test_a_repeated_line_is_found(check: Callable[..., Findings], lines: list[bytes], at: int, again: int) -> None:
    found = check([*lines[:at], lines[again], *lines[at:]])
    assert found.broken is not None
    assert found.broken.reason in {"inserted", "reordered"}
    assert found.broken.line in {at + 1, at + 2}


@pytest.mark.parametrize(("one", "other"), list(combinations(range(ENTRIES), 2)))
def test_swapped_lines_are_found(check: Callable[..., Findings], lines: list[bytes], one: int, other: int) -> None:
    swapped = lines.copy()
    swapped[one], swapped[other] = swapped[other], swapped[one]
    assert place(check(swapped)) == (one + 1, "reordered")


def test_a_line_that_was_changed_and_given_a_new_hash_is_found(
    check: Callable[..., Findings], lines: list[bytes]
) -> None:
    before = audit_line.parse_line(lines[1])
    forged = audit_line.format_line(audit_line.next_entry(before, 1_700_000_000_000, "threshold", {"by": "nobody"}))
    assert place(check([*lines[:2], forged, *lines[3:]])) == (4, "changed")
    assert place(check([*lines[:2], forged, *lines[2:]])) == (4, "inserted")


@pytest.mark.parametrize(
    ("written", "instead"), [(b":0.5", b": 0.5"), (b":0.5", b":5e-1"), (b"{", b'{"seq":9,'), ("ü".encode(), b"\\u00fc")]
)
def test_the_same_content_in_another_format_is_found(
    check: Callable[..., Findings], lines: list[bytes], written: bytes, instead: bytes
) -> None:
    otherwise = lines[0].replace(written, instead, 1)
    assert json.loads(otherwise) == json.loads(lines[0])
    assert place(check([otherwise, *lines[1:]])) == (1, "changed")


def test_a_line_of_other_json_is_found(check: Callable[..., Findings], lines: list[bytes]) -> None:
    content = {"seq": "1", "time": 0, "event": "x", "previous": ZEROS}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    own = json.dumps({**content, "hash": sha256(text.encode()).hexdigest()}, sort_keys=True, separators=(",", ":"))
    for line in (b"\n", b"[]\n", b"{}\n", b"null\n", b"[" * 100_000 + b"\n", b"1" * 5000 + b"\n", own.encode() + b"\n"):
        assert place(check([line, *lines])) == (1, "changed")


def test_entries_cut_off_the_end_are_found_only_with_a_kept_hash(
    check: Callable[..., Findings], lines: list[bytes]
) -> None:
    hashes = [json.loads(line)["hash"] for line in lines]
    assert check(lines[:-2]).is_sound
    assert check(lines[:-2], hashes[-3]).head_found
    cut = check(lines[:-2], hashes[-1])
    assert (cut.broken, cut.head_found, cut.is_sound) == (None, False, False)


def test_an_empty_log_is_sound(path: Path) -> None:
    AuditLog(path)
    found = verify(path)
    assert (found.entries, found.first_ms, found.last_ms, found.is_sound) == (0, None, None, True)


# A disk that fails


def test_an_entry_that_cannot_be_flushed_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(path)
    log = AuditLog(path)

    def fail(_number: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(AuditError, match=r"cannot write the audit log .*Input/output error"):
            log.append("pause")
    assert path.read_bytes() == b"".join(lines)
    log.append("resume")
    assert (verify(path).entries, verify(path).is_sound) == (ENTRIES + 1, True)


def test_a_partly_written_entry_leaves_nothing_behind(path: Path) -> None:
    lines = written(path)
    log = AuditLog(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(AuditError, match="only a part was written"):
            log.append("pause")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"".join(lines)
    log.append("resume")
    assert (verify(path).entries, verify(path).is_sound) == (ENTRIES + 1, True)


def test_a_part_that_cannot_be_removed_is_recovered_by_the_next_entry(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path)
    log = AuditLog(path)
    with path.open("ab") as file:
        file.write(b'{"acce')
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(AuditError):
            log.append("pause")
    log.append("resume")
    assert (verify(path).broken, verify(path).recoveries) == (None, 1)


@pytest.mark.parametrize("where", ["", "missing/audit.jsonl"])
def test_a_file_that_cannot_be_opened_is_reported_by_append(tmp_path: Path, where: str) -> None:
    with pytest.raises(AuditError, match="audit log"):
        AuditLog(tmp_path / where).append("started")
    with pytest.raises(AuditError, match="cannot read the audit log"):
        verify(tmp_path / where)


def test_a_log_that_was_deleted_shows_its_missing_entries(path: Path) -> None:
    log = AuditLog(path)
    log.append("pause")
    path.unlink()
    log.append("resume")
    assert place(verify(path)) == (1, "removed")


SMALL = 4096


def filled(path: Path, count: int) -> str:
    """A log of two small files, with a restart after every tenth entry; the hash of its last entry."""
    log, last = AuditLog(path, SMALL), ""
    for number in range(count):
        log = AuditLog(path, SMALL) if number % 10 == 9 else log
        last = log.append("pause", by=f"Jürgen {number}")
    return last


@given(count=st.integers(1, 120))
@settings(max_examples=30)
def test_a_log_is_bounded_and_its_chain_goes_on_in_the_next_file(count: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "audit.jsonl")
        last = filled(path, count)
        assert sum(each.stat().st_size for each in Path(folder).iterdir()) < 2 * (SMALL + 512)
        found = verify(path, last)
        assert found.is_sound
        newest = [each for line in newest_lines(path) if (each := parse_line(line))]
        assert newest[0].hash == last
        assert found.entries == len(newest)
        assert found.removed + found.entries == newest[0].seq


def test_entries_that_the_agent_did_not_remove_are_missed(path: Path) -> None:
    filled(path, 100)
    older = older_file(path)
    kept = older.read_bytes()
    assert verify(path).removed > 0
    older.write_bytes(b"".join(kept.splitlines(keepends=True)[1:]))
    assert place(verify(path)) == (1, "removed")
    older.write_bytes(kept.replace(b"pause", b"resum"))
    assert place(verify(path)) == (2, "changed")
    older.unlink()
    assert place(verify(path)) == (1, "removed")


def test_a_power_cut_between_the_files_leaves_one_chain(path: Path) -> None:
    filled(path, 40)
    path.replace(older_file(path))  # and the first entry of the new file was not written
    AuditLog(path, SMALL).append("pause")
    assert [entry["event"] for entry in entries(path)] == ["rotated", "pause"]
    assert verify(path).is_sound


def test_only_one_process_can_write(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from agent.audit.log import AuditLog; from agent.state_lock import state_lock\n"
        "with state_lock(Path(sys.argv[1])): AuditLog(Path(sys.argv[1]) / 'audit.jsonl').append('pause')"
    )
    with state_lock(tmp_path):
        AuditLog(tmp_path / "audit.jsonl").append("pause")
        other = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert other.returncode == 1
    assert "another agent is running" in other.stderr
    assert verify(tmp_path / "audit.jsonl").entries == 1
