"""GenICam cameras that are emulated: Aravis' on the loopback, pylon's, and the producer of the package genicam."""

from __future__ import annotations

import ctypes.util
import fcntl
import importlib.util
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

_PROGRAM = "arv-fake-gv-camera-0.8"
_PORT = Path(tempfile.gettempdir(), f"shiftwatch-tests-{os.getuid()}-gvcp.lock")


class GigeCamera:
    """A process that speaks GigE Vision over the loopback: 512x512 grey pixels, a gradient that moves.

    Args:
        serial: Its serial number.
        lost_packets: Of a thousand.
    """

    def __init__(self, serial: str, lost_packets: int = 0) -> None:
        self.source = f"genicam:{serial}"
        self._command = [_PROGRAM, "-i", "127.0.0.1", "-s", serial, "-r", str(lost_packets)]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - a program of Debian

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextmanager
def only_gige_camera() -> Iterator[None]:
    """All of them listen at one port of the loopback: one test at a time."""
    if shutil.which(_PROGRAM) is None or ctypes.util.find_library("aravis-0.8") is None:
        _missing("Aravis (Debian: aravis-tools)")
    with _PORT.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def gentl_source(serial: str) -> str:
    """One of three cameras of the producer that comes with the package genicam: colours, 20 frames/s, no trigger."""
    found = importlib.util.find_spec("genicam")
    if found is None or found.origin is None or importlib.util.find_spec("harvesters") is None:
        _missing("the extra gentl")
    return f"gentl:{Path(found.origin).parent / 'viky.cti'}#{serial}"


def basler_source(monkeypatch: pytest.MonkeyPatch) -> str:
    """Basler's own emulation, in each process that looks for cameras."""
    if importlib.util.find_spec("pypylon") is None:
        _missing("the extra basler")
    monkeypatch.setenv("PYLON_CAMEMU", "1")
    return "basler:"


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing in CI")
    pytest.skip(f"needs {what}")
