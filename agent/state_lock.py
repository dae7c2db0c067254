"""One agent at a time uses a state folder: two would send each other's records."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = "lock"


@contextmanager
def state_lock(state_dir: Path) -> Iterator[None]:
    """Refuse a second agent on the same state folder; the lock ends with the process, even if it is killed.

    Raises:
        OutboxError: Another agent is running on it, or the folder cannot be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / _LOCK).open("w")
    except OSError as error:
        raise OutboxError(
            what=f"cannot write to the state folder {state_dir}: {error.strerror}",
            remedy="fix its permissions, or name another folder as state_dir",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutboxError(
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
        lock = (state_dir / _LOCK).open()
    except FileNotFoundError:
        return False
    with lock:
        try:
            # Held for microseconds: an agent that starts at this moment is refused, and restarted by systemd.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
