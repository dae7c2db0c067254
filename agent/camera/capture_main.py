"""The program of a capture process: opens a source, and puts its frames into shared memory.

Its parent ends it by SIGTERM, at which the source is closed (some network cameras serve one viewer, and wait a minute
for one that vanished), or by SIGKILL when a driver hangs.
"""

from __future__ import annotations

import importlib
import json
import mmap
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.camera.decoder_warnings import DecoderWarnings
from agent.camera.shared_frames import SLOT_BYTES, SLOTS, TRIGGER, FrameReport, SharedFrames
from agent.clock import now_ms
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.camera.sources import Source
    from calibration.imaging.preprocess import Image

_CHANNELS = 3
_WAITING_EVERY_S = 0.5


def main(order: tuple[str, str, Mapping[str, Any]], to_parent: socket.socket, memory: int) -> None:
    """See `CaptureProcess`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    module, name, arguments = order
    source: Source = getattr(importlib.import_module(module), name)(**arguments)
    with suppress(SystemExit, BrokenPipeError, ConnectionResetError):  # the parent wants no more, or has gone
        _Capture(source, to_parent, SharedFrames(mmap.mmap(memory, 0))).run()


class _Capture:
    """One source, from open to close."""

    def __init__(self, source: Source, to_parent: socket.socket, frames: SharedFrames) -> None:
        self._source = source
        self._to_parent = to_parent
        self._frames = frames
        self._free = list(range(SLOTS))
        self._warnings = DecoderWarnings()
        self._reported_s = 0.0

    def run(self) -> None:
        """Until the source gives nothing more, or the parent has gone."""
        try:
            self._source.open()
            self._report(FrameReport("opened", texts=tuple(self._source.refused_settings)))
            while (is_grabbed := self._source.grab()) is not False:
                if is_grabbed:
                    self._report(self._frame(now_ms(), time.monotonic_ns()))
                else:
                    self._wait()
            what = f"camera {self._source.name} has stopped giving frames"
            self._report(FrameReport("failed", texts=(what, "check its power, its cable or the network")))
        except CameraError as error:
            self._report(FrameReport("failed", texts=(error.what, error.remedy)))
        finally:
            self._source.close()

    def _frame(self, captured_at_ms: int, captured_ns: int) -> FrameReport:
        self._take_orders()
        if not self._free:
            return FrameReport("superseded")
        with self._warnings:
            image = self._source.retrieve()
        if image is None or self._warnings.is_damaged:
            return FrameReport("unreadable", captured_at_ms, captured_ns)
        if not _fits_slot(image):
            self._report(FrameReport("unreadable", captured_at_ms, captured_ns))
            raise _garbage(self._source.name, image)
        slot = self._free.pop()
        self._frames.write(slot, image)
        rows, columns = image.shape[:2]
        stamp = self._source.stamp or ()
        return FrameReport("frame", captured_at_ms, captured_ns, slot, rows, columns, stamp=stamp)

    def _wait(self) -> None:
        """The camera waits for its trigger, and answers."""
        self._take_orders()
        now_s = time.monotonic()
        if now_s - self._reported_s >= _WAITING_EVERY_S:
            self._report(FrameReport("waiting"))
            self._reported_s = now_s

    def _take_orders(self) -> None:
        with suppress(BlockingIOError):
            while order := self._to_parent.recv(1, socket.MSG_DONTWAIT):
                if order == TRIGGER:
                    self._source.trigger()
                else:
                    self._free.append(order[0])
            raise BrokenPipeError  # an empty message is the end of the connection

    def _report(self, report: FrameReport) -> None:
        self._to_parent.sendall(json.dumps(report).encode())


def _fits_slot(image: Image) -> bool:
    is_colour = image.dtype == np.uint8 and image.ndim == _CHANNELS and image.shape[2] == _CHANNELS
    return is_colour and 0 < image.nbytes <= SLOT_BYTES


def _garbage(name: str, image: np.ndarray[Any, Any]) -> CameraError:
    shape = "x".join(str(side) for side in image.shape)
    return CameraError(
        what=f"camera {name} gives garbage: {shape} values of type {image.dtype}",
        remedy=f"set it to a format with 8 bits a colour and at most {SLOT_BYTES} bytes a frame",
    )
