"""How many processor cores this process may keep busy: those it may run on, within the quota of its container."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLASH = Path("/")


def usable_cores(root: Path = _SLASH) -> int:
    """Cores that this process may use; at least one. More threads than that would only be held up.

    Args:
        root: Where ``/proc`` and the control groups are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError, LookupError):  # a system that tells nothing, or in another way
        return max(1, int(min([allowed, *_quotas(root)])))
    return allowed


def _quotas(root: Path) -> Iterator[float]:
    """Quotas in cores of all control groups around this process; see cgroups(7) and proc(5), version 1 and 2."""
    own: dict[str, str] = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, _, top, mount, *_ = fields.split()
        kind, _, options = rest.split(" ", 2)
        controller = {"cgroup2": "", "cgroup": "cpu"}.get(kind)
        if controller in own and (kind == "cgroup2" or "cpu" in options.split(",")):
            yield from _quotas_of(root / mount.lstrip("/"), os.path.relpath(own[controller], top))


def _quotas_of(mount: Path, group: str) -> Iterator[float]:
    """Quotas of a group and of those around it, up to the one that is mounted."""
    inner = mount / group
    if ".." in inner.parts:  # a container sees its own group as the mounted one
        inner = mount
    for folder in (inner, *inner.parents):
        yield from _quota_in(folder)
        if folder == mount:
            return


def _quota_in(folder: Path) -> Iterator[float]:
    with suppress(OSError):
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            yield int(quota) / int(period)
    with suppress(OSError):
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        if quota_us > 0:
            yield quota_us / int((folder / "cpu.cfs_period_us").read_text())
