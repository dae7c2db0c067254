"""Settings reach a camera by its standard features, in an order that cameras take, and are read back."""

from __future__ import annotations

import pytest

from agent.camera.camera_settings import CameraSettings
from agent.camera.genicam.features import GenicamError, apply, switch_trigger
from agent.errors import CameraError


class Camera:
    """Features as a dictionary; a sensor of 1000 columns, whose region must fit at any time."""

    def __init__(self, **values: str) -> None:
        self.values = {"PixelFormat": "Mono8", "OffsetX": "400", "OffsetY": "0", "Width": "600", "Height": "100"}
        self.values |= values
        self.executed: list[str] = []

    def has(self, name: str) -> bool:
        return name in self.values

    def read(self, name: str) -> str:
        return self.values[name]

    def write(self, name: str, value: str) -> None:
        if name not in self.values:
            problem = f"no {name}"
            raise GenicamError(problem)
        after = {**self.values, name: value}
        if int(after["OffsetX"]) + int(after["Width"]) > 1000:
            problem = "the region leaves the sensor"
            raise GenicamError(problem)
        if name == "ExposureTime":
            value = str(round(float(value) / 50) * 50)
        if name == "TriggerSource" and value not in {"Software", "Line1"}:
            problem = f"TriggerSource has no entry {value}"
            raise GenicamError(problem)
        self.values[name] = value

    def execute(self, name: str) -> None:
        self.executed.append(name)


SETTINGS = CameraSettings(width=900, height=50, offset_x=100, exposure=5010.0, format="Mono8")


def test_a_region_is_set_in_an_order_in_which_it_always_fits() -> None:
    camera = Camera(ExposureTime="1", ExposureAuto="Continuous")
    assert apply(SETTINGS, None, camera) == []
    assert (camera.values["OffsetX"], camera.values["Width"]) == ("100", "900")
    assert (camera.values["ExposureAuto"], camera.values["ExposureTime"]) == ("Off", "5000")


def test_an_older_camera_has_older_names() -> None:
    camera = Camera(ExposureTimeAbs="1", GainRaw="0", AcquisitionFrameRateAbs="1")
    assert apply(CameraSettings(exposure=70.0, gain=3.0), 12.5, camera) == []
    assert [camera.values[name] for name in ("ExposureTimeAbs", "GainRaw", "AcquisitionFrameRateAbs")] == [
        "70",
        "3",
        "12.5",
    ]


def test_what_was_not_taken_is_reported_once_each_with_what_the_camera_has() -> None:
    camera = Camera(ExposureTime="1")
    settings = CameraSettings(width=1200, height=50, exposure=10.0, gain=2.0, white_balance=5000.0)
    assert apply(settings, 30.0, camera) == [
        "width: asked for 1200, but the region leaves the sensor",
        "exposure: asked for 10, got 0",
        "gain: asked for 2, but it has no such feature",
        "white_balance: asked for 5000, but it has no such feature",
        "frames_per_s: asked for 30, but it has no such feature",
    ]


def test_automatic_values_are_switched_on() -> None:
    camera = Camera(ExposureAuto="Off", BalanceWhiteAuto="Off")
    assert apply(CameraSettings(exposure="auto", white_balance="auto"), None, camera) == []
    assert {camera.values["ExposureAuto"], camera.values["BalanceWhiteAuto"]} == {"Continuous"}


@pytest.mark.parametrize(("trigger", "source"), [("software", "Software"), ("Line1", "Line1")])
def test_a_trigger_is_switched_on_after_its_source_is_chosen(trigger: str, source: str) -> None:
    camera = Camera(TriggerMode="Off", TriggerSource="Line0", TriggerSelector="AcquisitionStart")
    switch_trigger(trigger, camera)
    assert (camera.values["TriggerMode"], camera.values["TriggerSource"]) == ("On", source)
    assert camera.values["TriggerSelector"] == "FrameStart"


def test_a_camera_left_waiting_for_a_trigger_runs_freely_again() -> None:
    camera = Camera(TriggerMode="On", TriggerSource="Line1")
    switch_trigger("off", camera)
    assert camera.values["TriggerMode"] == "Off"
    switch_trigger("off", Camera())  # has no trigger at all


@pytest.mark.parametrize("values", [{}, {"TriggerMode": "Off", "TriggerSource": "Line0"}])
def test_a_trigger_that_it_does_not_have_is_an_error(values: dict[str, str]) -> None:
    with pytest.raises(CameraError, match=r"did not take camera\.trigger Line7"):
        switch_trigger("Line7", Camera(**values))
