"""One agent at a time uses a state folder: two would send each other's records."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from agent.errors import AgentRunningError, StateFolderError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = "lock"


@contextmanager
def state_lock(state_dir: Path) -> Iterator[None]:
    """Refuse a second agent on the same state folder; the lock ends with the process, even if it is killed.

    Raises:
        AgentRunningError: Another agent is running on it.
        StateFolderError: The folder or the lock cannot be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateFolderError(
            what=f"cannot write to the state folder {state_dir}: {error.strerror}",
            remedy="fix its permissions, or name another folder as state_dir",
        ) from error
    try:
        lock = _opened(state_dir, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise StateFolderError(
            what=f"cannot write {state_dir / _LOCK}: {error.strerror}",
            remedy=f"give the folder and its files to the agent's user: chown -R USER {state_dir}; remove it if "
            "it is a link",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AgentRunningError(
                what=f"another agent is running on {state_dir}",
                remedy="stop it, or give this one its own state_dir",
            ) from error
        yield


def is_in_use(state_dir: Path) -> bool:
    """Whether an agent is running on this state folder; creates nothing.

    Raises:
        OSError: The lock cannot be read.
    """
    try:
        lock = _opened(state_dir, os.O_RDONLY)
    except FileNotFoundError:
        return False
    with lock:
        try:
            # Held for microseconds: an agent that starts at this moment is refused, and restarted by systemd.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _opened(state_dir: Path, flags: int) -> BinaryIO:
    """The lock; never what a link of its name leads to, and without waiting for the other end of a pipe."""
    descriptor = os.open(state_dir / _LOCK, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    return open(descriptor, "rb", buffering=0)  # noqa: PTH123 - a descriptor; the caller closes it
