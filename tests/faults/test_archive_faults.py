"""The archive when its process is killed, its disk is full, slow or hung; and the soak run, short.

With SHIFTWATCH_SOAK=full the soak is as long as it is meant: 100,000 pictures.
"""

from __future__ import annotations

import logging
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from archive_soak import FULL, SHORT, Snapshots, differences, feed, mounted, soak
from neighbour import Neighbour

import agent.archive.archive
from agent.archive import files
from agent.archive.archive import Archive
from agent.archive.quota import MIB, Limits
from agent.archive.store import Store
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 20
QUOTA_MIB = 3
PATIENCE_S = 30.0


def skip_or_fail(error: PermissionError) -> None:
    reason = f"no file system can be mounted here: {error}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few mebibytes."""
    try:
        with mounted(tmp_path / "disk", 16) as folder:
            yield folder
    except PermissionError as error:
        skip_or_fail(error)


@pytest.fixture(autouse=True)
def _patient_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.archive.archive, "_FLUSH_TIMEOUT_S", PATIENCE_S)


def test_the_archive_stays_in_its_room_and_answers_fast_however_much_is_taken(tmp_path: Path) -> None:
    """Short: 10,000 pictures under a quota for some 1,500; full: see `archive_soak.FULL`."""
    plan = FULL if os.environ.get("SHIFTWATCH_SOAK") == "full" else SHORT
    try:
        outcome = soak(plan, tmp_path)
    except PermissionError as error:
        skip_or_fail(error)
    else:
        assert outcome.problems == [], outcome.figures


# Forks a process that keeps pictures until it is killed, each time it is told a number to begin with.
NURSERY = """
import os, sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from archive_soak import Snapshots
from agent.archive.archive import Archive

def live(first):
    snapshots = Snapshots(10**9)
    with Archive(Path({directory!r}), {quota}) as archive:
        for seq in range(first, 10**9):
            while archive.waiting >= 8:
                time.sleep(0.0002)
            archive.submit(snapshots[seq])

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        live(int(line))
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("dead", flush=True)
"""


def test_index_and_files_say_the_same_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    directory = tmp_path / "archive"
    here = os.path.dirname(__file__)  # noqa: PTH120 - a word for the program
    program = NURSERY.format(here=here, directory=str(directory), quota=QUOTA_MIB)
    moments = np.random.default_rng(1)
    left_by_kills = 0
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for kill in range(KILLS):
            nursery.stdin.write(f"{kill * 100_000}\n")
            nursery.stdin.flush()
            pid = int(nursery.stdout.readline())
            time.sleep(moments.uniform(0.0, 0.5))
            os.kill(pid, signal.SIGKILL)
            assert nursery.stdout.readline() == "dead\n"
            if directory.exists() and (directory / "index.sqlite").exists():
                with suppress(Exception):  # before the start is over there need not be an index to read
                    left_by_kills += len(differences(directory))
            store = Store(directory, Limits(QUOTA_MIB * MIB))
            while not store.is_reconciled:
                store.tidy()
            store.tidy()
            store.close()
            assert differences(directory) == []
            assert list(directory.glob("*/*.part")) == []
            assert sum(path.stat().st_size for path in directory.rglob("*")) <= QUOTA_MIB * MIB
        nursery.stdin.close()
        nursery.wait(PATIENCE_S)
    assert left_by_kills > 0, "no kill hit anything"
    assert len(list(directory.glob("*/*.json"))) > 100


def test_a_disk_that_a_neighbour_fills_costs_pictures_and_is_told_once_until_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    snapshots = Snapshots(10**9)
    directory = small_disk / "archive"
    neighbour = Neighbour(small_disk)
    with Archive(directory, 8) as archive:
        feed(archive, snapshots, range(400))
        assert archive.dropped == {}
        seq = 400
        while sum(archive.dropped.values()) < 50:
            neighbour.take_everything()
            feed(archive, snapshots, range(seq, seq + 1))
            seq += 1
        assert set(archive.dropped) == {"disk full"}
        assert archive.written == seq - 50
        neighbour.leave()
        feed(archive, snapshots, range(seq, seq + 100))
        assert archive.written == seq + 50, archive.dropped
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"], caplog.text
    assert differences(directory) == []


def test_a_slow_disk_does_not_slow_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, slow = files.write, threading.Event()

    def slowly(directory: Path, contents: dict[str, bytes]) -> None:
        if slow.is_set():
            time.sleep(0.2)
        write(directory, contents)

    monkeypatch.setattr(files, "write", slowly)
    snapshots = Snapshots(10**9)
    with Archive(tmp_path, 20) as archive:
        fast_ns = feed(archive, snapshots, range(300))
        slow.set()
        slow_ns = []
        for seq in range(300, 2300):
            snapshot = snapshots[seq]
            began_ns = time.perf_counter_ns()
            archive.submit(snapshot)
            slow_ns.append(time.perf_counter_ns() - began_ns)
        slow.clear()
        until(lambda: archive.waiting == 0, PATIENCE_S)
        busy = archive.dropped["archive busy"]
        assert archive.written == 2300 - busy
    assert busy > 1000, "the disk was not slow"
    assert statistics.median(slow_ns) < 20 * statistics.median(fast_ns)
    assert np.percentile(slow_ns, 90) < 0.1e9, "it waits for the disk"


def test_a_hung_disk_takes_nothing_from_the_loop_but_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, hangs = files.write, threading.Event()

    def hang(directory: Path, contents: dict[str, bytes]) -> None:
        hangs.wait(PATIENCE_S)
        write(directory, contents)

    monkeypatch.setattr(files, "write", hang)
    monkeypatch.setattr(agent.archive.archive, "_FLUSH_TIMEOUT_S", 0.05)
    snapshots = Snapshots(10**9)
    with Archive(tmp_path, 20) as archive:
        until(lambda: archive.is_reconciled)
        for seq in range(5000):
            archive.submit(snapshots[seq])
        assert archive.dropped["archive busy"] >= 5000 - 9
    assert archive.waiting == 1
    hangs.set()
    archive._thread.join(PATIENCE_S)
    assert (archive.waiting, archive.written) == (0, 1)
    assert sum(archive.dropped.values()) == 4999
