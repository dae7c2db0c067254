"""Frames, newest first: capture goes on while the last frame is judged, and whatever is left out is counted."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from agent.errors import CameraError
from agent.newest_slot import NewestSlot
from agent.sources import Source, source_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from calibration.preprocess import Image

CameraState: TypeAlias = Literal["closed", "running", "lost"]
Playback: TypeAlias = Literal["realtime", "fast"]

_SHORTEST_RETRY_S = 0.5
_LONGEST_RETRY_S = 10.0
_JOIN_TIMEOUT_S = 2.0
_LONGEST_SILENCE_S = 0.5
_JITTER = random.SystemRandom()

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the camera.

    Attributes:
        seq: Number of the frame in this session, from 0. Every captured frame has one, so a gap is a dropped frame.
        image: (rows, columns, 3), uint8, BGR; the frame's own, nobody writes into it later.
        captured_at_ms: Wall clock, ms since 1970, UTC.
        captured_ns: Monotonic clock, for ages and durations on this machine.
    """

    seq: int
    image: Image
    captured_at_ms: int
    captured_ns: int


class Camera(Protocol):
    """A source of frames.

    Order of calls: enter, iterate once, exit. ``stop`` may be called at any time and from any thread.

    ``captured`` = frames handed out + frames waiting (none after exit) + the sum of ``dropped``.
    """

    @property
    def captured(self) -> int:
        """Frames taken from the source so far."""

    @property
    def dropped(self) -> dict[str, int]:
        """Frames not handed out, by reason: ``superseded``, ``unreadable``, ``stopped``. A copy."""

    @property
    def state(self) -> CameraState:
        """``lost`` while a live source is away and is being retried."""

    def __enter__(self) -> Self:
        """Open the source; CameraError says what to check."""

    def __iter__(self) -> Iterator[Frame | None]:
        """Frames until the file ends or ``stop``; None every half second in which there was none."""

    def stop(self) -> None:
        """End the iteration at once, even while it waits."""

    def __exit__(self, *exception: object) -> None:
        """Let go of the source."""


def open_camera(
    source: int | str, playback: Playback = "realtime", frames_per_s: float | None = None, *, loop: bool = False
) -> Camera:
    """The camera for a source; entering it opens the source.

    Args:
        source: Device number, ``/dev/video*``, rtsp or http(s) URL, GStreamer pipeline (contains `` ! ``), video
            file or image folder.
        playback: Of files: ``realtime`` plays at their own rate and drops what is not fetched in time, as a camera
            does; ``fast`` reads every frame when it is asked for and drops none. Live sources are always live.
        frames_per_s: Of files: the rate instead of their own (folders: 10). Of a device: the rate asked of it.
        loop: Start a file again at its end.
    """
    found = source_from(source, frames_per_s)
    if not found.live and playback == "fast":
        return DirectCamera(found, loop=loop)
    return NewestFrameCamera(DirectCamera(found, loop=loop, paced=not found.live))


class DirectCamera:
    """Reads in the caller's thread, every frame; see Camera for the order of calls.

    A live source that goes away is opened again and again until it is back, or until ``stop``.

    Args:
        source: Where the frames come from.
        loop: Start a file again at its end.
        paced: Hand out frames no faster than the source's own rate. The schedule is absolute: a late frame does not
            delay those after it.
        clock_ns: Monotonic clock.
        stopping: Set by ``stop``, and what the camera waits on.
    """

    def __init__(
        self,
        source: Source,
        *,
        loop: bool = False,
        paced: bool = False,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        stopping: threading.Event | None = None,
    ) -> None:
        self.name = source.name
        self._source = source
        self._loop = loop
        self._paced = paced
        self._clock_ns = clock_ns
        self._stopping = stopping or threading.Event()
        self._captured = 0
        self._readable_before_this_pass = 0
        self._dropped: Counter[str] = Counter()
        self._state: CameraState = "closed"

    @property
    def captured(self) -> int:
        """See Camera."""
        return self._captured

    @property
    def dropped(self) -> dict[str, int]:
        """See Camera."""
        return dict(self._dropped)

    @property
    def state(self) -> CameraState:
        """See Camera."""
        return self._state

    def __enter__(self) -> Self:
        """See Camera."""
        self._source.open()
        self._state = "running"
        return self

    def __iter__(self) -> Iterator[Frame]:
        """See Camera."""
        start_ns = self._clock_ns()
        while not self._stopping.is_set():
            if self._paced:
                due_ns = start_ns + int(self._captured * 1e9 / self._source.frames_per_s)
                self._stopping.wait(max(0.0, (due_ns - self._clock_ns()) / 1e9))
            if self._stopping.is_set() or not (self._source.grab() or self._grab_again()):
                return
            frame = self._retrieve()
            if frame is not None and self._stopping.is_set():
                self._dropped["stopped"] += 1
            elif frame is not None:
                yield frame

    def stop(self) -> None:
        """See Camera."""
        self._stopping.set()

    def __exit__(self, *exception: object) -> None:
        """See Camera."""
        self._source.close()
        self._state = "closed"

    def _retrieve(self) -> Frame | None:
        captured_at_ms, captured_ns = time.time_ns() // 1_000_000, self._clock_ns()
        seq = self._captured
        self._captured += 1
        image = self._source.retrieve()
        if image is None:
            self._dropped["unreadable"] += 1
            return None
        return Frame(seq, image, captured_at_ms, captured_ns)

    def _grab_again(self) -> bool:
        """Go on after a grab that failed; false if there is nothing to go on with."""
        if self._source.live:
            return self._reconnect()
        readable = self._captured - self._dropped["unreadable"]
        # A file without one readable picture would be started again without end.
        if not self._loop or readable == self._readable_before_this_pass:
            return False
        self._readable_before_this_pass = readable
        self._source.close()
        self._source.open()
        return self._source.grab()

    def _reconnect(self) -> bool:
        self._state = "lost"
        _log.warning("camera %s is lost; trying again until it is back", self.name)
        longest_s = _SHORTEST_RETRY_S
        while True:
            self._source.close()
            longest_s = min(2 * longest_s, _LONGEST_RETRY_S)
            # Jitter keeps the cameras of a line from storming a restarted switch in step.
            if self._stopping.wait(_JITTER.uniform(_SHORTEST_RETRY_S, longest_s)):
                return False
            try:
                self._source.open()
            except CameraError as error:
                _log.debug("%s", error)
                continue
            if self._source.grab():
                self._state = "running"
                _log.info("camera %s is back", self.name)
                return True


class NewestFrameCamera:
    """Captures in a thread and keeps the newest frame only; see Camera for the order of calls.

    Args:
        camera: What the thread iterates.
    """

    def __init__(self, camera: DirectCamera) -> None:
        self._camera = camera
        self._slot: NewestSlot[Frame] = NewestSlot()
        self._stopping = threading.Event()
        self._superseded = 0
        self._refused = 0
        self._left = 0
        self._failure: CameraError | None = None
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)

    @property
    def captured(self) -> int:
        """See Camera."""
        return self._camera.captured

    @property
    def dropped(self) -> dict[str, int]:
        """See Camera."""
        own = Counter({"superseded": self._superseded, "stopped": self._refused + self._left})
        return dict(own + Counter(self._camera.dropped))

    @property
    def state(self) -> CameraState:
        """See Camera."""
        return self._camera.state

    def __enter__(self) -> Self:
        """See Camera."""
        self._camera.__enter__()
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[Frame | None]:
        """See Camera."""
        while not self._stopping.is_set():
            frame = self._slot.take(_LONGEST_SILENCE_S)
            if self._stopping.is_set():
                self._left += frame is not None
                return
            if frame is None and self._slot.is_exhausted:
                break
            yield frame
        if self._failure is not None and not self._stopping.is_set():
            raise self._failure

    def stop(self) -> None:
        """See Camera."""
        self._stopping.set()
        self._camera.stop()
        self._slot.close()

    def __exit__(self, *exception: object) -> None:
        """See Camera."""
        self.stop()
        self._thread.join(_JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            # A driver that hangs in a read cannot be interrupted, only left behind: releasing it here would crash.
            _log.warning("camera %s did not stop within %g s", self._camera.name, _JOIN_TIMEOUT_S)
            return
        if self._slot.take() is not None:
            self._left += 1
        self._camera.__exit__(*exception)

    def _capture(self) -> None:
        self._failure = CameraError(
            what=f"capture of {self._camera.name} ended unexpectedly",
            remedy="the log above tells why; start again",
        )
        try:
            for frame in self._camera:
                loser = self._slot.put(frame)
                self._refused += loser is frame
                self._superseded += loser is not None and loser is not frame
            self._failure = None
        except CameraError as error:
            self._failure = error
        finally:
            self._slot.close()
