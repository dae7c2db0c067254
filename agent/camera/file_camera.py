"""A camera that plays every frame of a file, in the caller's thread."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from agent.camera.contract import Frame
from agent.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from agent.camera.contract import CameraState
    from agent.camera.sources import Source


class FileCamera:
    """Reads in the caller's thread, every frame, until the source ends; see Camera for the order of calls.

    Args:
        source: Where the frames come from.
        loop: Start a file again at its end.
        paced: Hand out frames no faster than the source's rate. The schedule is absolute: a late frame does not delay
            the next ones.
        clock_ns: Monotonic clock.
        stopping: Set by ``stop``; the camera waits on it.
    """

    reason = ""
    refused_settings: Sequence[str] = ()

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
        self.captured = 0
        self.state: CameraState = "closed"
        self._readable_before_this_pass = 0
        self._dropped: Counter[str] = Counter()

    @property
    def frames_per_s(self) -> float:
        """Rate of the file, however fast it is read; known once it is open."""
        return self._source.frames_per_s

    @property
    def dropped(self) -> dict[str, int]:
        """See Camera."""
        return dict(self._dropped)

    def __enter__(self) -> Self:
        """See Camera."""
        self._source.open()
        self.state = "running"
        return self

    def __iter__(self) -> Iterator[Frame]:
        """See Camera."""
        start_ns = self._clock_ns()
        while not self._stopping.is_set():
            if self._paced:
                due_ns = start_ns + int(self.captured * 1e9 / self._source.frames_per_s)
                self._stopping.wait(max(0.0, (due_ns - self._clock_ns()) / 1e9))
            if self._stopping.is_set() or not (self._source.grab() or self._rewind()):
                return
            frame = self._retrieve()
            if frame is not None and self._stopping.is_set():
                self._dropped["stopped"] += 1
            elif frame is not None:
                yield frame

    def trigger(self) -> None:
        """See Camera."""

    def stop(self) -> None:
        """See Camera."""
        self._stopping.set()

    def __exit__(self, *exception: object) -> None:
        """See Camera."""
        self._source.close()
        self.state = "closed"

    def _retrieve(self) -> Frame | None:
        captured_at_ms, captured_ns = now_ms(), self._clock_ns()
        seq = self.captured
        self.captured += 1
        image = self._source.retrieve()
        if image is None:
            self._dropped["unreadable"] += 1
            return None
        return Frame(seq, image, captured_at_ms, captured_ns)

    def _rewind(self) -> bool:
        """Start again after the last frame; false if the source has ended."""
        readable = self.captured - self._dropped["unreadable"]
        # A file without any readable frame would be started again for ever.
        if not self._loop or readable == self._readable_before_this_pass:
            return False
        self._readable_before_this_pass = readable
        self._source.close()
        self._source.open()
        return bool(self._source.grab())
