"""Reads what the operating system reports through its programs and files."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from agent.state_lock import is_in_use

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S = 5.0


def output_of(*command: str) -> str | None:
    """What a program prints; None if it is not installed, fails or hangs."""
    # Some programs are in root's folders, although every user may run them.
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        ended = subprocess.run(  # noqa: S603 - found on the path, with our own arguments
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout if ended.returncode == 0 else None


def text_of(file: Path) -> str:
    """A file's content; empty if it does not exist or this user may not read it."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def is_agent_running(state_dir: Path) -> bool:
    """Whether an agent is running on this state folder; false if that cannot be read."""
    try:
        return is_in_use(state_dir)
    except OSError:
        return False
