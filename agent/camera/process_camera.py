"""A live camera: whatever its driver does, the fault is noticed and reported, and the camera is opened again."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.backoff import Backoff, BackoffLimits
from agent.camera.camera_settings import DEFAULT_SETTINGS
from agent.camera.child_handle import CaptureProcess
from agent.camera.contract import BEING_OPENED, Frame, Stamp
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Self

    from agent.camera.camera_settings import CameraSettings
    from agent.camera.contract import CameraState
    from agent.camera.shared_frames import FrameReport
    from agent.camera.sources import Source

_STOPS_WITHIN_S = 0.1
_SILENCE = "gives no frame"
_STEADY_AFTER_S = 30.0
"""A camera that is lost again sooner comes and goes: that is logged once, until it has been steady for as long."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a live camera may be silent.

    Attributes:
        open_s: From the start of its process until the first frame.
        read_s: Between two frames.
    """

    open_s: float = 10.0
    read_s: float = 2.0


DEFAULT_TIMEOUTS = Timeouts()
RETRIES = BackoffLimits(first_retry_s=1.0, longest_retry_s=10.0)
"""Waits of 0.5 s to 10 s; jitter keeps the cameras of a line from reconnecting all at once."""


class ProcessCamera:
    """Captures in a child process, for one thread; see Camera for the order of calls.

    A process that is silent for too long, dies, or sends garbage is ended, and another is started, until ``stop``.
    Each frame handed out is a copy: nothing writes into it later.

    Args:
        name: Name of the camera, without password.
        make: Makes the source in the child; a function at the top level of a module.
        arguments: Its arguments, as JSON.
        settings: Frames of another size than these ask for are dropped.
        timeouts: How long it may be silent.
        pace: Waits before it is started again.
    """

    def __init__(  # noqa: PLR0913 - each once
        self,
        name: str,
        make: Callable[..., Source],
        arguments: Mapping[str, object],
        *,
        settings: CameraSettings = DEFAULT_SETTINGS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        pace: BackoffLimits = RETRIES,
    ) -> None:
        self.name = name
        self._make = make
        self._arguments = arguments
        self._settings = settings
        self._timeouts = timeouts
        self._pace = pace
        self._stopping = threading.Event()
        self.captured = 0
        self._dropped: Counter[str] = Counter()
        self.state: CameraState = "closed"
        self.reason = ""
        self._complaint = _SILENCE
        self._size = (0, 0)
        self._first_frame_s = float("inf")
        self._is_loss_logged = self._comes_and_goes = False
        self._back_s = float("-inf")
        self._settings_logged: set[str] = set()
        self._hanging: list[CaptureProcess] = []
        self._process: CaptureProcess | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """See Camera."""
        return dict(self._dropped)

    @property
    def refused_settings(self) -> Sequence[str]:
        """See Camera."""
        return sorted(self._settings_logged)

    @property
    def left_behind(self) -> int:
        """Number of processes that hang inside the kernel, where nothing can end them."""
        return len(self._hanging)

    def __enter__(self) -> Self:
        """See Camera."""
        self.state, self.reason = "lost", f"camera {self.name} {BEING_OPENED}"
        return self

    def __iter__(self) -> Iterator[Frame]:
        """See Camera."""
        backoff = Backoff(self._pace)
        while not self._stopping.is_set():
            process = CaptureProcess(self.name, self._make, self._arguments)
            self._complaint, self._first_frame_s = _SILENCE, float("inf")
            with ExitStack() as ending:
                try:
                    self._process = ending.enter_context(process)
                    yield from self._frames(process)
                except CameraError as error:
                    self._note_loss(error)  # before exit: ending a process that hangs takes a second
            self._note_left_behind(process)
            backoff.note_connection(time.monotonic() - self._first_frame_s)
            self._stopping.wait(backoff.next_s())

    def trigger(self) -> None:
        """See Camera."""
        process = self._process
        if process is not None:
            process.trigger()

    def stop(self) -> None:
        """See Camera."""
        self._stopping.set()

    def __exit__(self, *exception: object) -> None:
        """See Camera."""
        self.state, self.reason = "closed", ""

    def _frames(self, process: CaptureProcess) -> Iterator[Frame]:
        """Frames until ``stop``; CameraError if the source has failed or is silent."""
        limit_s, since_s = self._timeouts.open_s, time.monotonic()
        while not self._stopping.is_set():
            left_s = since_s + limit_s - time.monotonic()
            report = process.next_report(min(max(left_s, 0.0), _STOPS_WITHIN_S))
            if report is not None and report.kind == "waiting":
                limit_s, since_s = self._timeouts.read_s, time.monotonic()
                self._note_frame(since_s)
                continue
            frame = None if report is None else self._frame(report, process)
            if frame is not None:
                if not frame.is_damaged:
                    limit_s, since_s = self._timeouts.read_s, time.monotonic()
                    self._note_frame(since_s)
                yield frame
            if left_s <= 0 and (frame is None or frame.is_damaged):
                raise CameraError(
                    what=f"camera {self.name} {self._complaint} within {limit_s:g} s",
                    remedy="check its power, its cable or the network, and what else uses it; it is opened again",
                )

    def _frame(self, report: FrameReport, process: CaptureProcess) -> Frame | None:
        """Count a frame; None if it is not to be handed out."""
        if report.kind == "opened":
            self._note_settings(report.texts)
            return None
        seq = self.captured
        self.captured += 1
        if report.kind == "unreadable":
            self._complaint = "gives no frame that is whole and can be decoded"
            if self.state == "running":
                black = np.zeros((*self._size, 3), np.uint8)
                return Frame(seq, black, report.captured_at_ms, report.captured_ns, is_damaged=True)
        if report.kind != "frame":
            self._dropped[report.kind] += 1
            return None
        image = process.take(report)
        if not self._settings.fits(report.rows, report.columns):
            self._dropped["wrong_size"] += 1
            size = f"{self._settings.width}x{self._settings.height}"
            self._complaint = f"gives frames of {report.columns}x{report.rows} pixels and none of {size}"
            return None
        self._complaint, self._size = _SILENCE, (report.rows, report.columns)
        stamp = Stamp(*report.stamp) if report.stamp else None
        return Frame(seq, image, report.captured_at_ms, report.captured_ns, stamp=stamp)

    def _note_frame(self, now_s: float) -> None:
        if self.state != "running":
            self._first_frame_s = now_s
            self.state, self.reason = "running", ""
            if not self._is_loss_logged:
                _log.info("camera %s gives frames", self.name)
        is_steady = not self._comes_and_goes or now_s - self._first_frame_s >= _STEADY_AFTER_S
        if self._is_loss_logged and is_steady:
            _log.info("camera %s is back", self.name)
            self._is_loss_logged, self._back_s = False, now_s

    def _note_loss(self, error: CameraError) -> None:
        self.state, self.reason = "lost", error.what
        if self._is_loss_logged:
            _log.debug("camera %s is lost: %s", self.name, error)
            return
        self._comes_and_goes = time.monotonic() - self._back_s < _STEADY_AFTER_S
        again = f" again, and logged only when it was steady for {_STEADY_AFTER_S:g} s" * self._comes_and_goes
        _log.warning("camera %s is lost%s: %s", self.name, again, error)
        self._is_loss_logged = True

    def _note_settings(self, refused: Sequence[str]) -> None:
        """Once each, not after each restart."""
        for setting in refused:
            if setting not in self._settings_logged:
                self._settings_logged.add(setting)
                _log.warning("camera %s did not take a setting: %s", self.name, setting)

    def _note_left_behind(self, process: CaptureProcess) -> None:
        self._hanging = [each for each in (*self._hanging, process) if each.is_left_behind]
        if process in self._hanging:
            _log.warning(
                "a capture process of camera %s hangs inside the kernel and cannot be ended; left behind: %d",
                self.name,
                self.left_behind,
            )
