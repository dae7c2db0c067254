"""Limits memory and tasks of processes as systemd does for MemoryMax= and TasksMax=, on a machine that lets us."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/sys/fs/cgroup")


class Group(NamedTuple):
    """A control group: the files into which its processes write their number, and those with its peaks."""

    joins: tuple[Path, ...]
    memory_peak: Path
    tasks_peak: Path


@contextmanager
def limited(memory_bytes: int, tasks: int) -> Iterator[Group]:
    """A group with these limits, in either version of cgroups; OSError if this user or machine cannot have one."""
    name = f"shiftwatch-test-{os.getpid()}"
    if (_ROOT / "cgroup.controllers").exists():
        memory = pids = _ROOT / name
        limits = {memory / "memory.max": memory_bytes, pids / "pids.max": tasks}
        peak = memory / "memory.peak"
    else:
        memory, pids = _ROOT / "memory" / name, _ROOT / "pids" / name
        limits = {memory / "memory.limit_in_bytes": memory_bytes, pids / "pids.max": tasks}
        peak = memory / "memory.max_usage_in_bytes"
    folders = tuple(dict.fromkeys((memory, pids)))
    for folder in folders:
        folder.mkdir()
    try:
        for file, limit in limits.items():
            file.write_text(f"{limit}")
        yield Group(tuple(folder / "cgroup.procs" for folder in folders), peak, pids / "pids.peak")
    finally:
        for folder in folders:
            folder.rmdir()
