"""The cores that a process may use are those of its container's quota, in both versions of control groups."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from calibration.engine.cpu_cores import usable_cores
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from onnxruntime import SessionOptions

V2_MOUNT = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1_MOUNT = (
    "33 25 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 25 0:30 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
)
V1_GROUPS = "5:memory:{group}\n4:cpu,cpuacct:{group}\n0::/"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def system(root: Path, mounts: str, groups: str, files: dict[str, str]) -> Path:
    content = {"proc/self/mountinfo": f"{mounts}\n", "proc/self/cgroup": f"{groups}\n"}
    content |= {f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in files.items()}
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "top", "files", "cores"),
    [
        ("/", "/", {"cpu.max": "200000 100000"}, 2),  # a container with a name space of its own
        ("/", "/", {"cpu.max": "max 100000"}, 16),
        ("/", "/", {}, 16),
        ("/", "/", {"cpu.max": "50000 100000"}, 1),
        ("/", "/", {"cpu.max": "350000 100000"}, 3),
        ("/a/b", "/", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),  # of a group around it
        ("/a/b", "/", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "400000 100000"}, 3),
        ("/docker/1", "/docker/1", {"cpu.max": "500000 100000"}, 5),
        ("/../1", "/", {"cpu.max": "600000 100000"}, 6),
        ("/", "/", {"cpu.max": "9900000 100000"}, 16),
        ("/", "/", {"cpu.max": "nonsense"}, 16),
    ],
)
def test_a_quota_of_version_2_counts(tmp_path: Path, group: str, top: str, files: dict[str, str], cores: int) -> None:
    assert usable_cores(system(tmp_path, V2_MOUNT.format(top=top), f"0::{group}", files)) == cores


@pytest.mark.parametrize(
    ("group", "top", "file", "quota_us", "cores"),
    [
        ("/", "/", "cpu.cfs_quota_us", -1, 16),
        ("/", "/", "cpu.cfs_quota_us", 200_000, 2),
        ("/docker/1", "/", "docker/1/cpu.cfs_quota_us", 300_000, 3),
        ("/docker/1", "/docker/1", "cpu.cfs_quota_us", 400_000, 4),
        ("/docker/1", "/", "docker/cpu.cfs_quota_us", 500_000, 5),
    ],
)
def test_a_quota_of_version_1_counts(  # noqa: PLR0913, PLR0917 - a row of the table
    tmp_path: Path, group: str, top: str, file: str, quota_us: int, cores: int
) -> None:
    quota = f"cpu,cpuacct/{file}"
    files = {quota: str(quota_us), quota.replace("quota", "period"): "100000"}
    groups, mounts = V1_GROUPS.format(group=group), V1_MOUNT.format(top=top)
    assert usable_cores(system(tmp_path, mounts, groups, files)) == cores


def test_without_control_groups_the_cores_count_that_the_process_may_run_on(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 16


def test_a_network_without_a_number_of_threads_takes_the_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def note(_: OnnxRuntimeEngine, options: SessionOptions) -> None:
        threads.append(options.intra_op_num_threads)
        reason = "noted"
        raise RuntimeError(reason)

    monkeypatch.setattr("calibration.engine.onnxruntime.usable_cores", lambda: 3)
    monkeypatch.setattr(OnnxRuntimeEngine, "_open_session", note)
    for given in (0, 5):
        with pytest.raises(EngineError), OnnxRuntimeEngine(b"", given):
            pass
    assert threads == [3, 5]
