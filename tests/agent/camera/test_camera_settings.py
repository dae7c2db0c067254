"""What is asked of a device, against devices that have minds of their own."""

from __future__ import annotations

import cv2
import pytest

from agent.camera.camera_settings import CameraSettings, apply

MJPG, YUYV = (float(cv2.VideoWriter.fourcc(*code)) for code in ("MJPG", "YUYV"))
EVERYTHING = CameraSettings(
    width=1920, height=1080, format="MJPG", exposure=100.0, white_balance=4600.0, gain=3.0, buffer_frames=2
)


class Device:
    """Takes what it is asked for, but for what is ``fixed``, and says no to what it does not ``know``."""

    def __init__(
        self, fixed: dict[int, float] | None = None, unknown: frozenset[tuple[int, float]] = frozenset()
    ) -> None:
        self.fixed = fixed or {}
        self.unknown = unknown
        self.asked: list[int] = []
        self.values: dict[int, float] = {}

    def set(self, number: int, value: float) -> bool:
        self.asked.append(number)
        if (number, value) in self.unknown:
            return False
        self.values[number] = value
        return True

    def get(self, number: int) -> float:
        return self.fixed.get(number, self.values.get(number, -1.0))


def test_nothing_is_set_if_nothing_is_configured() -> None:
    device = Device()
    assert apply(CameraSettings(), None, device) == []
    assert device.asked == []


def test_a_device_that_takes_every_setting_gives_no_complaint() -> None:
    device = Device()
    assert apply(EVERYTHING, 30.0, device) == []
    assert device.asked == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_BUFFERSIZE,
        cv2.CAP_PROP_AUTO_EXPOSURE,
        cv2.CAP_PROP_EXPOSURE,
        cv2.CAP_PROP_AUTO_WB,
        cv2.CAP_PROP_WB_TEMPERATURE,
        cv2.CAP_PROP_GAIN,
    ]
    assert device.values[cv2.CAP_PROP_AUTO_EXPOSURE] == 1.0
    assert device.values[cv2.CAP_PROP_AUTO_WB] == 0.0


def test_a_setting_that_a_device_did_not_take_is_reported_with_both_values() -> None:
    fixed = {cv2.CAP_PROP_FOURCC: YUYV, cv2.CAP_PROP_FRAME_WIDTH: 1280.0, cv2.CAP_PROP_FRAME_HEIGHT: 720.0}
    assert apply(EVERYTHING, 30.0, Device({**fixed, cv2.CAP_PROP_GAIN: -1.0})) == [
        "format: asked for MJPG, got YUYV",
        "width: asked for 1920, got 1280",
        "height: asked for 1080, got 720",
        "gain: asked for 3, got -1",
    ]


def test_a_rate_that_is_nearly_right_is_right() -> None:
    assert apply(CameraSettings(), 30.0, Device({cv2.CAP_PROP_FPS: 30.00003})) == []
    assert apply(CameraSettings(), 30.0, Device({cv2.CAP_PROP_FPS: 25.0})) == ["frames_per_s: asked for 30, got 25"]


@pytest.mark.parametrize("mode", [3.0, 0.0])
def test_either_automatic_mode_of_exposure_will_do(mode: float) -> None:
    others = frozenset((cv2.CAP_PROP_AUTO_EXPOSURE, other) for other in (0.0, 1.0, 2.0, 3.0) if other != mode)
    device = Device(unknown=others)
    assert apply(CameraSettings(exposure="auto"), None, device) == []
    assert device.values == {cv2.CAP_PROP_AUTO_EXPOSURE: mode}


def test_exposure_that_stays_automatic_is_reported() -> None:
    device = Device({cv2.CAP_PROP_AUTO_EXPOSURE: 3.0, cv2.CAP_PROP_EXPOSURE: 157.0})
    assert apply(CameraSettings(exposure=100.0), None, device) == [
        "exposure mode: asked for manual, got 3",
        "exposure: asked for 100, got 157",
    ]


def test_automatic_white_balance_is_one_property() -> None:
    device = Device()
    assert apply(CameraSettings(white_balance="auto"), None, device) == []
    assert device.values == {cv2.CAP_PROP_AUTO_WB: 1.0}


def test_every_size_fits_unless_another_is_configured() -> None:
    assert CameraSettings().fits(720, 1280)
    assert EVERYTHING.fits(1080, 1920)
    assert not EVERYTHING.fits(720, 1280)
    assert not EVERYTHING.fits(1920, 1080)
