"""Settings of a camera, and whether its driver took them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import cv2

if TYPE_CHECKING:
    from collections.abc import Iterator

# V4L2 has two manual and two automatic modes of exposure; a camera may support only one of each kind.
_MANUAL_EXPOSURES = (1.0, 2.0)
_AUTO_EXPOSURES = (3.0, 0.0)
_AUTO_WHITE_BALANCE, _MANUAL_WHITE_BALANCE = 1.0, 0.0
_SAME_WITHIN = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings:
    """None leaves a camera as it is. Devices and GenICam cameras are set up; every live source has its sizes checked.

    Attributes:
        width: Columns of a frame; goes with ``height``.
        height: Rows of a frame.
        format: FOURCC of what the device sends; for GenICam a name such as ``Mono8``.
        exposure: In the driver's own unit (V4L2: mostly 0.1 ms; GenICam: µs), or ``auto``.
        white_balance: Kelvin, or ``auto``.
        gain: In the driver's own unit (GenICam: dB).
        buffer_frames: Number of frames that the driver may keep.
        offset_x: GenICam: left edge of the region that the camera sends, in columns of its sensor.
        offset_y: Likewise its top edge.
        packet_bytes: GigE Vision: size of a packet; None takes the largest that arrives.
        decoder: ``opencv``, or ``av`` for streams and videos through PyAV.
        trigger: GenICam: ``off``, ``software``, or the input that makes the camera take an image.
    """

    width: int | None = None
    height: int | None = None
    format: str | None = None
    exposure: float | Literal["auto"] | None = None
    white_balance: float | Literal["auto"] | None = None
    gain: float | None = None
    buffer_frames: int | None = None
    offset_x: int | None = None
    offset_y: int | None = None
    packet_bytes: int | None = None
    decoder: Literal["opencv", "av"] = "opencv"
    trigger: str = "off"

    def fits(self, rows: int, columns: int) -> bool:
        """Whether frames have the configured size."""
        return self.height in {None, rows} and self.width in {None, columns}


DEFAULT_SETTINGS = CameraSettings()


class Device(Protocol):
    """The part of ``cv2.VideoCapture`` that is needed here."""

    def set(self, propId: int, value: float, /) -> bool:  # noqa: N803 - OpenCV's own name
        """Set a property; false if the driver refuses."""

    def get(self, propId: int, /) -> float:  # noqa: N803 - OpenCV's own name
        """The value that the driver reports."""


class _Property(NamedTuple):
    """One property of OpenCV, and its acceptable values."""

    key: str
    number: int
    asked: tuple[float, ...]
    shown: str


def apply(settings: CameraSettings, frames_per_s: float | None, device: Device) -> list[str]:
    """Set up an open device; what it did not take, as ``width: asked for 1920, got 1280``."""
    properties = list(_properties(settings, frames_per_s))
    for each in properties:
        any(device.set(each.number, value) for value in each.asked)
    # Read back at the end: a later setting may change an earlier one.
    answers = [(each, device.get(each.number)) for each in properties]
    return [
        f"{each.key}: asked for {each.shown}, got {_shown(each, got)}"
        for each, got in answers
        if not any(math.isclose(got, value, rel_tol=_SAME_WITHIN) for value in each.asked)
    ]


def _properties(settings: CameraSettings, frames_per_s: float | None) -> Iterator[_Property]:
    """In the order that drivers need: the format determines the sizes, the size the rates, `auto` what can be set."""
    if settings.format is not None:
        code = float(cv2.VideoWriter.fourcc(*settings.format))
        yield _Property("format", cv2.CAP_PROP_FOURCC, (code,), settings.format)
    yield from _number("width", cv2.CAP_PROP_FRAME_WIDTH, settings.width)
    yield from _number("height", cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
    yield from _number("frames_per_s", cv2.CAP_PROP_FPS, frames_per_s)
    yield from _number("buffer_frames", cv2.CAP_PROP_BUFFERSIZE, settings.buffer_frames)
    yield from _automatic(
        "exposure",
        settings.exposure,
        (cv2.CAP_PROP_AUTO_EXPOSURE, _AUTO_EXPOSURES, _MANUAL_EXPOSURES),
        cv2.CAP_PROP_EXPOSURE,
    )
    yield from _automatic(
        "white_balance",
        settings.white_balance,
        (cv2.CAP_PROP_AUTO_WB, (_AUTO_WHITE_BALANCE,), (_MANUAL_WHITE_BALANCE,)),
        cv2.CAP_PROP_WB_TEMPERATURE,
    )
    yield from _number("gain", cv2.CAP_PROP_GAIN, settings.gain)


def _number(key: str, number: int, asked: float | None) -> Iterator[_Property]:
    if asked is not None:
        yield _Property(key, number, (float(asked),), f"{asked:g}")


def _automatic(
    key: str, asked: float | str | None, mode: tuple[int, tuple[float, ...], tuple[float, ...]], number: int
) -> Iterator[_Property]:
    """A property that the camera controls itself, or takes as a number in manual mode."""
    mode_number, automatic, manual = mode
    if isinstance(asked, str):
        yield _Property(key, mode_number, automatic, asked)
    elif asked is not None:
        yield _Property(f"{key} mode", mode_number, manual, "manual")
        yield from _number(key, number, asked)


def _shown(each: _Property, got: float) -> str:
    if each.number == cv2.CAP_PROP_FOURCC and got > 0:
        return int(got).to_bytes(4, "little").decode("ascii", "replace")
    return f"{got:g}"
