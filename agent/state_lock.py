"""Two agents on the same records would send each other's: the folder has one user at a time."""

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
    """Refuse a second agent on the same records; the lock goes with the process, however that ends.

    Raises:
        OutboxError: Another agent is running on them, or the folder cannot be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / _LOCK).open("w")
    except OSError as error:
        raise OutboxError(
            what=f"cannot write to the state folder {state_dir}: {error.strerror}",
            remedy="mend its permissions, or name another as state_dir",
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
    """Whether an agent is running on these records; makes nothing.

    Raises:
        OSError: The lock cannot be read.
    """
    try:
        lock = (state_dir / _LOCK).open()
    except FileNotFoundError:
        return False
    with lock:
        try:
            # Held for microseconds: an agent that starts just then is refused, and started again by systemd.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
