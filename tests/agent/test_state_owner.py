"""Root works on a station's files as the user who owns them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from agent.audit.log import AuditLog
from agent.commands.control_socket import NAME, ask_station
from agent.doctor.station_probes import records
from agent.errors import AgentRunningError, StateFolderError, StateOwnerError, StationUnreachableError
from agent.state_lock import is_in_use, state_lock
from agent.state_owner import acting_as, become, owner_of, owns_part_of, unusable
from tests.support.other_users import OWNER, enterable_folder
from tests.support.stations import write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.stations import Outcome

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as other users")


@pytest.fixture
def folder() -> Iterator[Path]:
    with enterable_folder() as path:
        yield path


@pytest.fixture
def state(folder: Path) -> Path:
    """The state folder of another user."""
    path = folder / "state"
    path.mkdir()
    os.chown(path, OWNER, OWNER)
    return path


def test_what_belongs_to_root_or_does_not_exist_has_no_other_owner(tmp_path: Path) -> None:
    assert owner_of(tmp_path, tmp_path / "not there") is None


@root_only
def test_a_link_of_another_user_makes_that_user_the_owner(folder: Path) -> None:
    (folder / "state").symlink_to("/etc")
    os.chown(folder / "state", OWNER, OWNER, follow_symlinks=False)
    for path in (folder / "state", folder / "state" / "archive"):
        owner = owner_of(path)
        assert owner is not None
        assert owner.uid == OWNER
        assert owns_part_of(owner, path)
        assert not owns_part_of(owner, folder)


@root_only
def test_the_rights_of_the_owner_hold_inside_and_those_of_root_after(state: Path, tmp_path: Path) -> None:
    before = (os.getresuid(), os.getresgid(), os.getgroups())
    with acting_as(owner_of(state)):
        (state / "file").touch()
        assert 0 not in {os.geteuid(), os.getegid(), *os.getgroups()}
        with pytest.raises(PermissionError):
            (tmp_path / "file").touch()
    assert (state / "file").stat().st_uid == OWNER
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


@root_only
def test_a_process_that_has_become_the_owner_cannot_be_root_again(state: Path) -> None:
    child = os.fork()
    if not child:
        with suppress(StateOwnerError):  # where only root may read Python; the rights are given up all the same
            become(owner_of(state))
        try:
            os.setuid(0)
        except PermissionError:
            os._exit(0 if 0 not in {*os.getresuid(), *os.getresgid(), *os.getgroups()} else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@root_only
@pytest.mark.slow
def test_no_command_of_root_touches_what_links_of_the_owner_lead_to(folder: Path, state: Path) -> None:
    secret = folder / "secret"
    secret.write_text("root's own")
    secret.chmod(0o600)
    for name in ("lock", "audit.jsonl", "versions.json", "outbox.sqlite", "control.sock", "control.sock.new"):
        (state / name).symlink_to(secret)
    before = sorted(state.iterdir())
    config = write_config(folder, folder / "bundle", folder, 1)
    for command in ("run", "doctor", "versions", "audit show", "audit verify", "command pause", "recalibrate --cancel"):
        arguments = [sys.executable, "-m", "agent", *command.split(), "--config", str(config)]
        ended = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=folder)  # noqa: S603 - ours
        assert ended.returncode in {0, 2}
        assert "root's own" not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
    status = secret.stat()
    assert (status.st_uid, status.st_mode & 0o777, secret.read_text()) == (0, 0o600, "root's own")
    assert sorted(state.iterdir()) == before


@pytest.mark.parametrize(("words", "code"), [("audit show", 2), ("audit verify", 2), ("versions", 0)])
def test_a_command_does_not_wait_for_the_other_end_of_a_pipe(
    tmp_path: Path, command: Callable[..., Outcome], words: str, code: int
) -> None:
    (tmp_path / "state").mkdir()
    for name in ("audit.jsonl", "versions.json"):
        os.mkfifo(tmp_path / "state" / name)
    ended = command(*words.split(), "--config", write_config(tmp_path, tmp_path, tmp_path, 1))
    assert ended.code == code
    assert "Traceback" not in ended.err


@root_only
def test_the_audit_log_of_another_user_is_shown_to_root(
    folder: Path, state: Path, command: Callable[..., Outcome]
) -> None:
    with acting_as(owner_of(state)):
        AuditLog(state / "audit.jsonl").append("pause", by="anna")
    shown = command("audit", "show", "--config", write_config(folder, folder, folder, 1))
    assert (shown.code, "anna" in shown.out) == (0, True)


def test_a_link_and_a_pipe_are_no_lock(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("content")
    (tmp_path / "lock").symlink_to("other")
    with pytest.raises(StateFolderError, match="lock"), state_lock(tmp_path):
        pass
    assert (tmp_path / "other").read_text() == "content"
    (tmp_path / "lock").unlink()
    os.mkfifo(tmp_path / "lock")
    assert not is_in_use(tmp_path)  # and does not wait for somebody to write


def test_a_second_agent_has_an_error_of_its_own(tmp_path: Path) -> None:
    with state_lock(tmp_path), pytest.raises(AgentRunningError, match="another agent is running"), state_lock(tmp_path):
        pass


def test_a_command_is_not_sent_to_the_socket_that_a_link_leads_to(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        other.settimeout(0.0)
        (tmp_path / NAME).symlink_to("other.sock")
        with pytest.raises(StationUnreachableError, match="not a socket"):
            list(ask_station(tmp_path, {"command": "pause"}))
        with pytest.raises(BlockingIOError):
            other.accept()


@root_only
def test_files_that_the_owner_of_the_folder_may_not_use_are_named(state: Path) -> None:
    usable, roots = state / "audit.jsonl", [state / "lock", state / "versions.json", state / "zones" / "left"]
    (state / "zones").mkdir(mode=0o755)
    os.chown(state / "zones", OWNER, OWNER)
    for path in (usable, *roots[:2], state / "notes of root"):
        path.touch(mode=0o600)
    roots[2].mkdir(mode=0o755)
    os.chown(usable, OWNER, OWNER)
    with acting_as(owner_of(state)):
        assert set(unusable(state)) == set(roots)
    assert not unusable(state)


@root_only
def test_the_doctor_names_them_also_to_root(folder: Path, state: Path) -> None:
    for name in ("outbox.sqlite", "versions.json"):
        (state / name).touch(mode=0o600)
    os.chown(state / "versions.json", OWNER, OWNER)
    found = [each for each in records(str(write_config(folder, folder, folder, 1))) if each.level == "fault"]
    assert [each.name for each in found] == ["state files"]
    assert f"{state / 'outbox.sqlite'} (of user root)" in found[0].found
    assert "chown" in found[0].remedy


@root_only
def test_a_start_names_a_file_of_another_user(
    folder: Path, state: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Outcome]
) -> None:
    (state / "sparkplug.sqlite").touch(mode=0o600)
    monkeypatch.setattr("agent.station.run.unusable", lambda _: [state / "sparkplug.sqlite"])
    os.chown(state, 0, 0)
    ended = command("run", "--config", write_config(folder, bundle, folder, 1))
    assert ended.code == 2
    assert f"{state / 'sparkplug.sqlite'} (of user root)" in ended.err
    assert "chown" in ended.err


def test_a_file_of_another_user_ends_a_command_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Outcome]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/of/another/user")

    monkeypatch.setattr("agent.audit.cli.verify", refuse)
    ended = command("audit", "verify", tmp_path)
    assert ended.code == 2
    assert "/of/another/user: Permission denied" in ended.err
