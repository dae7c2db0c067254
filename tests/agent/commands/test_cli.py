"""Commands from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.stations import write_config

if TYPE_CHECKING:
    from pathlib import Path

UNNAMED = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
"""Runs a program as a user without a name, as in many containers."""


def can_be_unnamed() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*UNNAMED, "true"], check=False).returncode  # noqa: S603 - nothing from outside


@pytest.mark.slow
@pytest.mark.skipif(not can_be_unnamed(), reason="this system lets no process have a user namespace")
@pytest.mark.parametrize("arguments", [["command", "pause"], ["recalibrate", "--cancel"]], ids=" ".join)
def test_a_user_without_a_name_may_command(arguments: list[str], tmp_path: Path) -> None:
    config = write_config(tmp_path, tmp_path / "bundle", tmp_path, 1)
    environment = {name: value for name, value in os.environ.items() if name not in {"LOGNAME", "USER", "USERNAME"}}
    program = [*UNNAMED, sys.executable, "-m", "agent", *arguments, "--config", str(config)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, env=environment, timeout=60)  # noqa: S603 - our own program
    assert ended.returncode == 2
    assert "no agent is running on" in ended.stderr
    assert "Traceback" not in ended.stderr
