"""Real data and real weights, which the repository does not hold; and which tests may run side by side."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator

PROJECT = Path(__file__).resolve().parents[1]

# Test processes side by side are given 80 columns; a test that wants another number says so.
os.environ.pop("COLUMNS", None)

# No deadline, because a busy machine is no bug; the same examples on every run in CI, new ones at the desk.
settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Each test holds a lock that all processes share; one that is to be alone holds it exclusively.

    It waits for that in a turnstile, so that no other test begins meanwhile.
    """
    kind = fcntl.LOCK_SH if item.get_closest_marker("alone") is None else fcntl.LOCK_EX
    folder = Path(tempfile.gettempdir())
    with (folder / "shiftwatch-tests.lock").open("a") as lock:
        with (folder / "shiftwatch-tests.turnstile").open("a") as turnstile:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(lock, kind)
        return (yield)


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
def weights() -> Path:
    """Folder of real pretrained weights, beside the data."""
    return _folder(_data().parent / "weights")
