"""The program of a capture process: opens a source, and puts its frames into shared memory.

It is started by `capture_process`, which also ends it: by SIGTERM, at which the source is closed (some network cameras
serve one viewer, and believe for a minute in one that vanished), or by SIGKILL where a driver hangs.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.camera.shared_frames import LONGEST_MESSAGE_BYTES, SLOT_BYTES, SLOTS, FrameReport, SharedFrames
from agent.child_process import die_with
from agent.clock import now_ms
from agent.errors import CameraError

if TYPE_CHECKING:
    from agent.camera.sources import Source
    from calibration.imaging.preprocess import Image

_CHANNELS = 3


def main() -> None:
    """In the new process; arguments: the parent's id, the descriptors of the socket and of the memory."""
    parent, line, memory = (int(argument) for argument in sys.argv[1:])
    die_with(parent)  # even while a driver hangs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for descriptor in (line, memory):  # what a driver starts must not outlive us with our line in its hands
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - takes no keyword
    os.dup2(2, 1)  # what libraries print is no output of the agent
    with socket.socket(fileno=line) as to_parent:
        module, name, arguments = json.loads(to_parent.recv(LONGEST_MESSAGE_BYTES))
        source: Source = getattr(importlib.import_module(module), name)(**arguments)
        with suppress(SystemExit, BrokenPipeError, ConnectionResetError):  # the parent wants no more, or has gone
            _Capture(source, to_parent, SharedFrames(memory)).run()
    os._exit(0)  # what drivers do at a regular end is no concern of ours, and some crash


class _Capture:
    """One source, from open to close."""

    def __init__(self, source: Source, line: socket.socket, slots: SharedFrames) -> None:
        self._source = source
        self._line = line
        self._slots = slots
        self._free = list(range(SLOTS))

    def run(self) -> None:
        """Until the source gives nothing more, or the parent has gone."""
        try:
            self._source.open()
            self._tell(FrameReport("opened", texts=tuple(self._source.refused_settings)))
            while self._source.grab():
                self._tell_frame(now_ms(), time.monotonic_ns())
            what = f"camera {self._source.name} has stopped giving frames"
            self._tell(FrameReport("failed", texts=(what, "check its power, its cable or the network")))
        except CameraError as error:
            self._tell(FrameReport("failed", texts=(error.what, error.remedy)))
        finally:
            self._source.close()

    def _tell_frame(self, captured_at_ms: int, captured_ns: int) -> None:
        self._take_back()
        if not self._free:
            self._tell(FrameReport("superseded"))
            return
        image = self._source.retrieve()
        if image is None or not _is_picture(image):
            self._tell(FrameReport("unreadable"))
            if image is not None:
                raise _garbage(self._source.name, image)
            return
        slot = self._free.pop()
        self._slots.write(slot, image)
        self._tell(FrameReport("frame", captured_at_ms, captured_ns, slot, *image.shape[:2]))

    def _take_back(self) -> None:
        """The slots that the parent has emptied."""
        with suppress(BlockingIOError):
            while given := self._line.recv(1, socket.MSG_DONTWAIT):
                self._free.append(given[0])
            raise BrokenPipeError  # an empty message is the end of the line

    def _tell(self, told: FrameReport) -> None:
        self._line.sendall(told.as_bytes())


def _is_picture(image: Image) -> bool:
    fits = image.dtype == np.uint8 and image.ndim == _CHANNELS and image.shape[2] == _CHANNELS
    return fits and 0 < image.nbytes <= SLOT_BYTES


def _garbage(name: str, image: np.ndarray[Any, Any]) -> CameraError:
    shape = "x".join(str(side) for side in image.shape)
    return CameraError(
        what=f"camera {name} gives garbage: {shape} values of type {image.dtype}",
        remedy=f"set it to a format with 8 bits a colour and at most {SLOT_BYTES} bytes a picture",
    )
