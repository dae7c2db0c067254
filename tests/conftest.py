"""Real data and weights, which the repository does not hold; which tests may run at the same time; markers."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support import built_table

if TYPE_CHECKING:
    from collections.abc import Generator

PROJECT = Path(__file__).resolve().parents[1]
_CHECKOUT = hashlib.sha256(bytes(PROJECT)).hexdigest()[:12]
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_LOCK = Path(tempfile.gettempdir(), f"shiftwatch-tests-{os.getuid()}-{_CHECKOUT}")

# Test processes side by side are given 80 columns; a test that wants another number says so.
os.environ.pop("COLUMNS", None)

# No deadline, because a busy machine is no bug; the same examples on every run in CI, new ones at the desk.
settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Two processes more than cores, for tests that wait."""
    return None if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") else _CORES + 2


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """As many tests as there are cores, and tests marked `waits`; a test marked `alone` while no other runs.

    Each test holds a lock that all processes share, or holds it exclusively. It waits for the lock in a turnstile, so
    that no other test starts meanwhile.
    """
    kind = fcntl.LOCK_SH if item.get_closest_marker("alone") is None else fcntl.LOCK_EX
    with ExitStack() as stack:
        if item.get_closest_marker("waits") is None:
            _hold_a_core(stack)
        lock = stack.enter_context(_LOCK.with_suffix(".lock").open("a"))
        with _LOCK.with_suffix(".turnstile").open("a") as turnstile:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(lock, kind)
        return (yield)


def _hold_a_core(stack: ExitStack) -> None:
    """One of as many locks as there are cores; the next in the queue looks for one that is free."""
    cores = [stack.enter_context(_LOCK.with_suffix(f".core{core}").open("a")) for core in range(_CORES)]
    with _LOCK.with_suffix(".queue").open("a") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        while True:
            for core in cores:
                with suppress(BlockingIOError):
                    fcntl.flock(core, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
            time.sleep(0.002)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a fast run leaves out; order the files.

    Those with tests that run alone go first, as no other test is under way that they must wait for. Then come those
    that take long, so that all processes end together.
    """
    for item in items:
        folders = item.path.relative_to(PROJECT / "tests").parts
        if "faults" in folders:
            item.add_marker(pytest.mark.faults)
        if "benchmarks" in folders or item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.slow)
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("faults")}
    alone = {item.path for item in items if item.get_closest_marker("alone")}
    items.sort(key=lambda item: (item.path not in alone, item.path not in long))


def _folder(path: Path) -> Path:
    """The folder, or the reason why this test cannot run without it; in CI that is a failure."""
    if not path.is_dir():
        reason = f"no folder {path}; set SHIFTWATCH_DATA to the folder of real data (its sibling `weights` goes along)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def _data() -> Path:
    return PROJECT / os.environ.get("SHIFTWATCH_DATA", "../shared/data")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real pictures and videos."""
    return _folder(_data())


@pytest.fixture(scope="session")
def process_locks() -> None:
    """Locks that processes share, which some machines do not have: where /dev/shm is read-only."""
    try:
        multiprocessing.Lock()
    except (ImportError, OSError) as error:
        pytest.skip(f"processes cannot share locks here (is /dev/shm writable?): {error}")


@pytest.fixture(scope="session")
def weights() -> Path:
    """Folder of real pretrained weights, beside the data."""
    return _folder(_data().parent / "weights")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What NVIDIA's parser and builder made of each network."""
    built_table.write(terminalreporter)
