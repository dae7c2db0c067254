"""Fixtures for tests that break things."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.station_fixtures import bundle, command, listen, mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["bundle", "command", "listen", "mosquitto"]

SIZE_MIB = 24


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few mebibytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    command = [mount, "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a folder of our own
    if result.returncode:
        reason = f"no file system can be mounted here: {result.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield folder
    # Lazily: what a failed test has left open must not keep it.
    subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True)  # noqa: S603 - the same
