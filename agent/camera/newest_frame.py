"""A camera that keeps only the newest frame, for a loop that may be slower than the source."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING

from agent.camera.latest_value import LatestValue
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from agent.camera.contract import CameraState, Capture, Frame

_JOIN_TIMEOUT_S = 2.0
_LONGEST_SILENCE_S = 0.5

_log = logging.getLogger(__name__)


class NewestFrameCamera:
    """Captures in a thread and keeps only the newest frame; see Camera for the order of calls."""

    def __init__(self, capture: Capture) -> None:
        self._camera = capture
        self._slot: LatestValue[Frame] = LatestValue()
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

    @property
    def reason(self) -> str:
        """See Camera."""
        return self._camera.reason

    @property
    def refused_settings(self) -> Sequence[str]:
        """See Camera."""
        return self._camera.refused_settings

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

    def trigger(self) -> None:
        """See Camera."""
        self._camera.trigger()

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
            # A read from a hanging disk cannot be interrupted; closing the file now would crash.
            _log.warning("camera %s did not stop within %g s", self._camera.name, _JOIN_TIMEOUT_S)
            return
        if self._slot.take() is not None:
            self._left += 1
        self._camera.__exit__(*exception)

    def _capture(self) -> None:
        self._failure = CameraError(
            what=f"capture of {self._camera.name} ended unexpectedly",
            remedy="see the log above; start again",
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
