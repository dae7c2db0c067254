"""NVIDIA's own cuda-bindings, as installed and as old as they may be, run an engine on a driver that stands in."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calibration.engine.cuda_choice import BINDINGS

if TYPE_CHECKING:
    from calibration.bundle.bundle import Bundle

PROJECT = Path(__file__).resolve().parents[3]
PROGRAM = PROJECT / "tests" / "support" / "stand_in_driver.py"

pytestmark = pytest.mark.slow


def impossible(reason: str) -> None:
    """This cannot be tested here; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def download(folder: Path, version: str) -> Path:
    """One version, unpacked."""
    command = f"pip download --quiet --no-deps --only-binary=:all: --dest {folder} cuda-bindings=={version}"
    try:
        subprocess.run([sys.executable, "-m", *command.split()], check=True, capture_output=True, text=True)  # noqa: S603
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["pip does not say why"])[-1]
        impossible(f"cannot download cuda-bindings: {reason}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.parametrize("version", [None, "12.8.0"], ids=["installed", "oldest"])
def test_an_engine_runs_on_cuda_bindings(learnt: Bundle, tmp_path: Path, version: str | None) -> None:
    if (sys.platform, platform.machine()) not in {("linux", "x86_64"), ("linux", "aarch64")}:
        pytest.skip("the stand-in is a library for x86-64 and aarch64 Linux")
    if not BINDINGS[1].installed:
        impossible("cuda-bindings is not installed: pip install --editable '.[cuda-bindings]'")
    bindings = [] if version is None else [download(tmp_path, version)]
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, PROGRAM, learnt.path, tmp_path, *bindings],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(version or "1")
