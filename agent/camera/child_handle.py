"""A capture process, seen from its parent: started, heard, ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from agent.camera.shared_frames import LONGEST_MESSAGE_BYTES, FrameReport, SharedFrames, new_memory
from agent.child_process import how_it_ended
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from agent.camera.sources import Source
    from calibration.imaging.preprocess import Image

_CLOSED_WITHIN_S = 0.5
_KILLED_WITHIN_S = 0.5
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024)}
"""For glibc, which else gives the memory of each picture back to the kernel: 5 ms a frame of 1920x1080, measured."""


class CaptureProcess:
    """Runs from enter to exit, and dies with the thread that has entered it.

    Args:
        name: Of the camera, without password.
        make: Makes the source, in the new process; a function at the top level of a module.
        arguments: Its arguments, as JSON has them. They are not on the command line, which everybody may read.
    """

    def __init__(self, name: str, make: Callable[..., Source], arguments: Mapping[str, object]) -> None:
        self._name = name
        self._order = json.dumps([make.__module__, make.__qualname__, dict(arguments)]).encode()
        self._resources = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it; CameraError where this device has no room for a process."""
        try:
            with ExitStack() as started:
                self._start(started)
                self._resources = started.pop_all()
        except OSError as error:
            raise CameraError(
                what=f"no process can be started for camera {self._name}: {error.strerror}",
                remedy="see which processes take the memory of this device, and its limits for this user",
            ) from error
        return self

    def hear(self, timeout_s: float) -> FrameReport | None:
        """What it tells next; None when nothing comes in time.

        Raises:
            CameraError: The source has failed, or the process has died.
        """
        self._line.settimeout(timeout_s)
        try:
            message = self._receive()
        except TimeoutError:
            return None
        if not message:
            raise CameraError(what=self._how_it_ended(), remedy="the log above may tell more; it is started again")
        told = FrameReport.from_bytes(message)
        if told.kind == "failed":
            raise CameraError(what=told.texts[0], remedy=told.texts[1])
        return told

    def take(self, told: FrameReport) -> Image:
        """The picture of a ``frame``, as a copy of its own; its slot is given back."""
        image = self._slots.copy(told.slot, told.rows, told.columns)
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died since
            self._line.sendall(bytes([told.slot]))
        return image

    def __exit__(self, *_: object) -> None:
        """End it: with grace, then without."""
        self._resources.close()

    @property
    def is_left_behind(self) -> bool:
        """After exit: still there, though killed, because it hangs inside the kernel."""
        return self._process is not None and self._process.poll() is None

    def _start(self, started: ExitStack) -> None:
        with ExitStack() as only_theirs:
            memory = new_memory()
            only_theirs.callback(os.close, memory)
            self._slots = SharedFrames(memory)
            started.callback(self._slots.close)
            self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            started.enter_context(self._line)
            only_theirs.enter_context(theirs)
            descriptors = (theirs.fileno(), memory)
            code = f"import sys; sys.path[:] = {sys.path!r}; from agent.camera.capture_main import main; main()"
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", code, *(str(number) for number in (os.getpid(), *descriptors))],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                env={**_KEEP_MEMORY, **os.environ},
                start_new_session=True,  # Ctrl-C is for the parent, who ends it
            )
        self._process = process
        started.callback(_end, process)
        with suppress(BrokenPipeError):  # dead already: `hear` tells
            self._line.sendall(self._order)

    def _receive(self) -> bytes:
        try:
            return self._line.recv(LONGEST_MESSAGE_BYTES)
        except ConnectionResetError:  # it died with messages of ours unread: said once, then come those it had sent
            return self._line.recv(LONGEST_MESSAGE_BYTES)

    def _how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = 0 if self._process is None else self._process.wait(_CLOSED_WITHIN_S)
            return f"the capture process of camera {self._name} {how_it_ended(code)}"
        return f"the capture process of camera {self._name} has hung up"


def _end(process: subprocess.Popen[bytes]) -> None:
    """With grace, so that it can close its source; then without."""
    process.terminate()
    for patience_s in (_CLOSED_WITHIN_S, _KILLED_WITHIN_S):
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return
        process.kill()
