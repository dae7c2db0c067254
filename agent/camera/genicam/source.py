"""A GenICam camera as a source of frames, whatever library reaches it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agent.camera.contract import Stamp
from agent.camera.genicam.features import GenicamError, apply, switch_trigger
from agent.camera.genicam.pixel_formats import bgr_from
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from agent.camera.camera_settings import CameraSettings
    from agent.camera.genicam.features import Features
    from calibration.imaging.preprocess import Image

_BUFFERS = 8
_LOOKS_EVERY_S = 0.1
_LOOKS_FOR_A_REQUEST_EVERY_S = 0.005
_ALIVE_EVERY_S = 0.5
_LARGEST_SHORT_NUMBER = 0xFFFF
_MOST_MISSING = 1000
"""A larger step of the frame number is a camera that counts from the beginning again."""


class Received(NamedTuple):
    """What a camera has sent for one frame; belongs to the driver, until it is asked for the next one.

    Attributes:
        data: (bytes,); None if a part of it is missing.
        pixel_format: Its name in the Pixel Format Naming Convention.
        number: The camera's own number of the frame.
        time_ns: The camera's own clock.
    """

    data: NDArray[np.uint8] | None
    pixel_format: str
    rows: int
    columns: int
    number: int
    time_ns: int


class Driver(Protocol):
    """A library through which a camera is reached.

    Order of calls: ``open``, then ``features``, then ``start``, then ``receive`` and ``check`` in turn, then ``close``,
    which may come at any time. All of them may raise GenicamError or CameraError.
    """

    @property
    def features(self) -> Features:
        """Those of the open camera."""

    def open(self) -> None:
        """Find the camera, and take control of it."""

    def start(self, buffers: int, packet_bytes: int | None) -> Sequence[str]:
        """Let the camera send frames; returns what it did not take."""

    def receive(self, timeout_s: float) -> Received | None:
        """The next frame, in order; None if there is none in time."""

    def check(self) -> None:
        """Ask the camera for something; GenicamError if it does not answer."""

    def close(self) -> None:
        """Give the camera up."""


class GenicamSource:
    """See Source. Frames of which packets are missing cannot be decoded, and neither can those that never came.

    Attributes:
        incomplete: How many of the frames that were retrieved were such frames.
    """

    live = True
    is_rescaled = False

    def __init__(
        self, name: str, connect: Callable[[], Driver], settings: CameraSettings, frames_per_s: float | None
    ) -> None:
        self.name = name
        self.frames_per_s = frames_per_s or 0.0
        self.refused_settings: Sequence[str] = ()
        self.stamp: Stamp | None = None
        self._connect = connect
        self._driver: Driver | None = None
        self._settings = settings
        self._asked_frames_per_s = frames_per_s
        self._is_triggered = settings.trigger != "off"
        self._look_s = _LOOKS_FOR_A_REQUEST_EVERY_S if settings.trigger == "software" else _LOOKS_EVERY_S
        self.incomplete = 0
        self._received: Received | None = None
        self._missing = 0
        self._last_number: int | None = None
        self._checked_s = 0.0

    def open(self) -> None:
        """See Source."""
        settings = self._settings
        self._missing, self._last_number, self._received = 0, None, None
        self._driver = driver = self._connect()
        try:
            driver.open()
            refused = apply(settings, self._asked_frames_per_s, driver.features)
            switch_trigger(settings.trigger, driver.features)
            refused += driver.start(settings.buffer_frames or _BUFFERS, settings.packet_bytes)
        except GenicamError as error:
            raise CameraError(
                what=f"camera {self.name} does not open: {error}",
                remedy="check that no other program controls it, and its address; it is opened again",
            ) from error
        self.refused_settings = refused

    def grab(self) -> bool | None:
        """See Source."""
        if self._missing:
            self._missing -= 1
            return True
        try:
            received = self._next()
            if received is None:
                self._check()
                return None
        except GenicamError as error:
            raise CameraError(
                what=f"camera {self.name} is gone: {error}", remedy="check its power and its cable; it is opened again"
            ) from error
        self._missing = self._missing_before(received.number)
        self._received, self._last_number = received, received.number
        return True

    def retrieve(self) -> Image | None:
        """See Source."""
        received = self._received
        if self._missing or received is None or received.data is None:
            self.incomplete += 1
            return None
        self.stamp = Stamp(received.number, received.time_ns)
        return bgr_from(received.data, received.pixel_format, received.rows, received.columns)

    def trigger(self) -> None:
        """Let the camera take an image now, with ``camera.trigger: software``."""
        try:
            self._opened.features.execute("TriggerSoftware")
        except GenicamError as error:
            raise CameraError(
                what=f"camera {self.name} takes no trigger: {error}",
                remedy="check its power and its cable; it is opened again",
            ) from error

    def close(self) -> None:
        """See Source."""
        self._received = None
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    @property
    def _opened(self) -> Driver:
        assert self._driver is not None  # noqa: S101 - after open
        return self._driver

    def _next(self) -> Received | None:
        """The next frame; None if there is none now, and the camera waits for its trigger."""
        while True:
            received = self._opened.receive(self._look_s)
            if received is not None or self._is_triggered:
                return received

    def _check(self) -> None:
        """A camera that waits for its trigger is silent; whether it is still there, it must be asked."""
        now_s = time.monotonic()
        if now_s - self._checked_s >= _ALIVE_EVERY_S:
            self._opened.check()
            self._checked_s = now_s

    def _missing_before(self, number: int) -> int:
        """How many frames before this one never came."""
        if self._last_number is None:
            return 0
        step = number - self._last_number
        if step < 0 and self._last_number > _LARGEST_SHORT_NUMBER - _MOST_MISSING:
            step += _LARGEST_SHORT_NUMBER  # GigE Vision 1 counts from 1 to 65535, and again
        return step - 1 if 1 < step <= _MOST_MISSING else 0
