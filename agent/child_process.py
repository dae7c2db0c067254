"""Processes that the agent starts and that must not outlive it; how they end, and how large they were."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """In the child: be killed when the parent ends, whatever hangs then.

    The kernel sends the signal as soon as the thread ends that has started us.

    Args:
        parent: Its process id.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        os._exit(1)


def how_it_ended(code: int) -> str:
    """In words, from the exit code as `subprocess` has it."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def peak_memory_mib(pid: int) -> float | None:
    """Most memory that a process ever had resident; None where it is gone, or the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(sizes[0]) / 1024 if sizes else None
