"""The capture process as its parent sees it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from agent.camera.shared_frames import MEMORY_BYTES, TRIGGER, FrameReport, SharedFrames
from agent.child_process import ChildProcess, ChildProgram
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.camera.sources import Source
    from calibration.imaging.preprocess import Image

_PROGRAM = ChildProgram(
    module="agent.camera.capture_main",
    failure=CameraError,
    remedy="the log above may say more; it is started again",
    memory_bytes=MEMORY_BYTES,
    grace_s=0.5,
)
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024)}
"""glibc otherwise gives the memory of each image back to the kernel: 5 ms a frame of 1920x1080, measured."""


class CaptureProcess(ChildProcess):
    """Captures from one source.

    Args:
        name: Name of the camera, without password.
        make: Makes the source in the child; a function at the top level of a module.
        arguments: Its arguments, as JSON.
    """

    def __init__(self, name: str, make: Callable[..., Source], arguments: Mapping[str, object]) -> None:
        order = [make.__module__, make.__qualname__, dict(arguments)]
        super().__init__(
            _PROGRAM, f"the capture process of camera {name}", order, environment={**_KEEP_MEMORY, **os.environ}
        )

    def next_report(self, timeout_s: float) -> FrameReport | None:
        """The next report; None if there is none in time.

        Raises:
            CameraError: The source has failed, or the process has died.
        """
        message = self.receive(timeout_s)
        report = None if message is None else FrameReport(*json.loads(message))
        if report is not None and report.kind == "failed":
            raise CameraError(what=report.texts[0], remedy=report.texts[1])
        return report

    def trigger(self) -> None:
        """Let the camera take an image now; from any thread."""
        self.send(TRIGGER)

    def take(self, report: FrameReport) -> Image:
        """A copy of the image that a ``frame`` reports; its slot is given back."""
        image = SharedFrames(self.memory).copy(report.slot, report.rows, report.columns)
        self.send(bytes([report.slot]))
        return image
