from __future__ import annotations

import pytest

from agent.camera.genicam.devices import DeviceInfo, chosen
from agent.errors import CameraError

LEFT = DeviceInfo("Basler-1", "S1", "Basler", "ace", "192.168.0.7", "GigEVision")
RIGHT = DeviceInfo("FLIR-2", "", "FLIR", "Blackfly")


@pytest.mark.parametrize(
    ("name", "found"), [("S1", LEFT), ("Basler-1", LEFT), ("192.168.0.7", LEFT), ("FLIR-2", RIGHT)]
)
def test_a_camera_is_found_by_serial_number_identity_or_address(name: str, found: DeviceInfo) -> None:
    assert chosen([LEFT, RIGHT], name) is found


def test_the_only_camera_needs_no_name() -> None:
    assert chosen([RIGHT], "") is RIGHT


def test_one_of_several_must_be_named() -> None:
    with pytest.raises(CameraError) as refused:
        chosen([LEFT, RIGHT], "")
    assert refused.value.one_line == (
        "2 GenICam cameras answer: Basler ace S1 at 192.168.0.7, FLIR Blackfly FLIR-2; "
        "name one of them by its serial number in camera.source: S1, FLIR-2"
    )


def test_an_absent_camera_is_an_error_that_lists_those_that_answer() -> None:
    with pytest.raises(CameraError, match=r"no GenICam camera S9 answers; there are: Basler ace S1 at 192\.168\.0\.7"):
        chosen([LEFT], "S9")
    with pytest.raises(CameraError, match="no GenICam camera answers; there are: none"):
        chosen([], "")
