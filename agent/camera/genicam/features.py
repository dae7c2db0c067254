"""Settings of a GenICam camera by the standard names of its features (SFNC), and whether it took them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.camera.camera_settings import CameraSettings

_SAME_WITHIN = 0.02
"""Cameras round exposures and rates to what their clock can do."""


class Features(Protocol):
    """The features of an open camera; values travel as text, as GenApi's ``ToString`` and ``FromString`` have it."""

    def has(self, name: str) -> bool:
        """Whether the camera has this feature, and it can be used now."""

    def read(self, name: str) -> str:
        """Its value; GenicamError if that cannot be read."""

    def write(self, name: str, value: str) -> None:
        """Set it; GenicamError if the camera refuses."""

    def execute(self, name: str) -> None:
        """Carry out a command; GenicamError if the camera refuses."""


class GenicamError(Exception):
    """The camera, or the library through which it is reached, refuses something; its text says why."""


class _Setting(NamedTuple):
    """A setting, the features that may stand for it, newest name first, and its value."""

    key: str
    names: tuple[str, ...]
    value: str


def apply(settings: CameraSettings, frames_per_s: float | None, features: Features) -> list[str]:
    """Set up an open camera that does not send images now.

    Args:
        settings: Exposure in µs, gain in dB, the format by its name in the Pixel Format Naming Convention.
        frames_per_s: Rate; None leaves it as it is.
        features: Of the camera.

    Returns:
        What it did not take, as ``exposure: asked for 5000, got 4000``.
    """
    asked = list(_settings(settings, frames_per_s))
    refusals = [_set(each, features) for each in asked]
    # Read back at the end: a later setting may change an earlier one.
    found = [refusal or _difference(each, features) for each, refusal in zip(asked, refusals, strict=True)]
    return [f"{each.key}: asked for {each.value}, {text}" for each, text in zip(asked, found, strict=True) if text]


def switch_trigger(trigger: str, features: Features) -> None:
    """Let the camera run freely, or send an image for each signal.

    Args:
        trigger: ``off``, ``software``, or the name of an input such as ``Line1``.
        features: Of the camera.

    Raises:
        CameraError: The camera has no such trigger: its images would not be those of the parts.
    """
    if trigger == "off" and not features.has("TriggerMode"):
        return
    source = "Software" if trigger == "software" else trigger
    try:
        if features.has("TriggerSelector"):
            features.write("TriggerSelector", "FrameStart")
        if trigger != "off":
            features.write("TriggerSource", source)
        features.write("TriggerMode", "Off" if trigger == "off" else "On")
        taken = trigger == "off" or features.read("TriggerSource") == source
    except GenicamError as error:
        raise _no_trigger(trigger, str(error)) from error
    if not taken:
        raise _no_trigger(trigger, f"its trigger source is {features.read('TriggerSource')}")


def _no_trigger(trigger: str, why: str) -> CameraError:
    return CameraError(
        what=f"the camera did not take camera.trigger {trigger}: {why}",
        remedy="look up the names of its inputs, such as Line0 or Line1, in its manual",
    )


def _settings(settings: CameraSettings, frames_per_s: float | None) -> Iterator[_Setting]:
    """In the order that cameras need: the format determines the sizes, the size the offsets, all of them the rates."""
    if settings.format is not None:
        yield _Setting("format", ("PixelFormat",), settings.format)
    if settings.width is not None and settings.height is not None:
        for name in ("OffsetX", "OffsetY"):  # at its old place a larger region may not fit
            yield _Setting("", (name,), "0")
        yield _Setting("width", ("Width",), str(settings.width))
        yield _Setting("height", ("Height",), str(settings.height))
    if settings.offset_x is not None:
        yield _Setting("offset_x", ("OffsetX",), str(settings.offset_x))
    if settings.offset_y is not None:
        yield _Setting("offset_y", ("OffsetY",), str(settings.offset_y))
    yield from _automatic("exposure", "ExposureAuto", ("ExposureTime", "ExposureTimeAbs"), settings.exposure)
    yield from _automatic("gain", "GainAuto", ("Gain", "GainAbs", "GainRaw"), settings.gain)
    yield from _automatic("white_balance", "BalanceWhiteAuto", (), settings.white_balance)
    if frames_per_s is not None:
        yield _Setting("", ("AcquisitionFrameRateEnable", "AcquisitionFrameRateEnabled"), "true")
        rate = ("AcquisitionFrameRate", "AcquisitionFrameRateAbs")
        yield _Setting("frames_per_s", rate, f"{frames_per_s:g}")


def _automatic(key: str, switch: str, names: tuple[str, ...], asked: float | str | None) -> Iterator[_Setting]:
    """A value that the camera controls itself, or takes in manual mode."""
    if isinstance(asked, str):
        yield _Setting(key, (switch,), "Continuous")
    elif asked is not None:
        yield _Setting("", (switch,), "Off")
        yield _Setting(key, names, f"{asked:g}")


def _set(setting: _Setting, features: Features) -> str:
    """Why it cannot be set; empty if it is, and where a camera without it is no worse."""
    name = _name_in(setting, features)
    try:
        if name is not None:
            features.write(name, setting.value)
    except GenicamError as error:
        return f"but {error}" if setting.key else ""
    return "but it has no such feature" if name is None and setting.key else ""


def _difference(setting: _Setting, features: Features) -> str:
    name = _name_in(setting, features)
    if not setting.key or name is None:
        return ""
    try:
        got = features.read(name)
    except GenicamError as error:
        return f"but {error}"
    return "" if _same(setting.value, got) else f"got {got}"


def _name_in(setting: _Setting, features: Features) -> str | None:
    return next((name for name in setting.names if features.has(name)), None)


def _same(asked: str, got: str) -> bool:
    try:
        return math.isclose(float(asked), float(got), rel_tol=_SAME_WITHIN)
    except ValueError:
        return asked == got
