"""Root starts a station whose state folder belongs to another user: it runs as that user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.state_owner import name_of
from tests.support.other_users import OWNER, enterable_folder
from tests.support.stations import closed_port, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The user may read everything, so that Python is found wherever it is installed, and may write what others may.
LIMITED = ["--securebits", "+no_setuid_fixup", "--bounding-set", "-all,+dac_read_search,+setuid,+setgid"]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root acts as other users, here by setpriv"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with enterable_folder() as path:
        yield path


def test_a_station_that_root_starts_leaves_only_files_of_the_owner_and_follows_no_link(
    folder: Path, bundle: Path
) -> None:
    state, secret = folder / "state", folder / "secret"
    (state / "archive").mkdir(parents=True)
    secret.write_text("root's own")
    secret.chmod(0o600)
    for name in (".versions.json.part", "control.sock.new", "archive/usb"):
        (state / name).symlink_to(secret)
    for path in (state, *state.rglob("*")):
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
    config = write_config(folder, bundle, write_pictures(folder / "parts", good_parts(3)), closed_port())
    program = ["setpriv", *LIMITED, sys.executable, "-m", "agent", "run", "--config", str(config)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own
    assert ended.returncode == 0, ended.stderr
    assert f"running as user {name_of(OWNER)}, who owns {state}" in ended.stderr
    assert {path.name for path in state.iterdir()} > {"lock", "outbox.sqlite", "versions.json", "audit.jsonl"}
    assert {path.lstat().st_uid for path in (state, *state.rglob("*"))} == {OWNER}
    status = secret.stat()
    assert (status.st_uid, status.st_mode & 0o777, secret.read_text()) == (0, 0o600, "root's own")
