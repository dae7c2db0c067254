"""Real data and real weights, which the repository does not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

PROJECT = Path(__file__).resolve().parents[1]

# No deadline, because a busy machine is no bug; the same examples on every run in CI, new ones at the desk.
settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


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
