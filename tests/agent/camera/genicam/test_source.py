"""A GenICam camera whose library is a script: lost frames, wrapped numbers, a camera that waits or is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.camera.camera_settings import CameraSettings
from agent.camera.contract import Stamp
from agent.camera.genicam.features import GenicamError
from agent.camera.genicam.source import GenicamSource, Received
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Features:
    """Those of a camera that takes everything."""

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self.executed: list[str] = []

    def has(self, _name: str) -> bool:
        return True

    def read(self, name: str) -> str:
        return self.written[name]

    def write(self, name: str, value: str) -> None:
        self.written[name] = value

    def execute(self, name: str) -> None:
        self.executed.append(name)


class Scripted:
    """Gives frames with these numbers, None for none in time; a negative number is an incomplete frame."""

    def __init__(self, script: Sequence[int | None], *, is_gone: bool = False) -> None:
        self.features = Features()
        self.script = list(script)
        self.is_gone = is_gone
        self.checks = self.closed = 0

    def open(self) -> None:
        if self.is_gone:
            problem = "no route"
            raise GenicamError(problem)

    def start(self, buffers: int, packet_bytes: int | None) -> Sequence[str]:
        assert buffers > 1
        return [] if packet_bytes is None else [f"packet_bytes: {packet_bytes}"]

    def receive(self, timeout_s: float) -> Received | None:
        assert 0 < timeout_s < 0.5
        number = self.script.pop(0)
        if number is None:
            return None
        data = np.full(6, abs(number) % 256, np.uint8) if number >= 0 else None
        return Received(data, "Mono8", 2, 3, abs(number), 7)

    def check(self) -> None:
        self.checks += 1
        if self.is_gone:
            problem = "no answer"
            raise GenicamError(problem)

    def close(self) -> None:
        self.closed += 1


def opened(driver: Scripted, **settings: object) -> GenicamSource:
    source = GenicamSource("genicam:1", lambda: driver, CameraSettings(**settings), None)  # type: ignore[arg-type]
    source.open()
    return source


def levels(source: GenicamSource, frames: int) -> list[int | None]:
    found: list[int | None] = []
    for _ in range(frames):
        assert source.grab() is True
        image = source.retrieve()
        found.append(None if image is None else int(image[0, 0, 0]))
    return found


def test_frames_come_with_the_number_and_the_time_of_the_camera() -> None:
    source = opened(Scripted([4, 5]))
    assert source.grab()
    image = source.retrieve()
    assert image is not None
    assert image.shape == (2, 3, 3)
    assert source.stamp == Stamp(4, 7)


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([1, 2, 5, 6], [1, 2, None, None, 5, 6]),
        ([1, -2, 3], [1, None, 3]),
        ([65534, 65535, 1, 2], [254, 255, 1, 2]),
        ([65534, 2], [254, None, None, 2]),
        ([90, 1, 2], [90, 1, 2]),
        ([5, 5, 6], [5, 5, 6]),
        ([10, 100_000, 100_001], [10, 160, 161]),
    ],
    ids=["lost", "incomplete", "wrapped", "lost and wrapped", "restarted", "repeated", "jumped"],
)
def test_a_frame_that_never_came_and_one_that_is_incomplete_are_frames_that_cannot_be_decoded(
    numbers: list[int], found: list[int | None]
) -> None:
    source = opened(Scripted(numbers))
    assert levels(source, len(found)) == found
    assert source.incomplete == found.count(None)


def test_frames_that_are_grabbed_and_not_retrieved_are_not_confused() -> None:
    source = opened(Scripted([1, 4, 5]))
    assert [source.grab() for _ in range(4)] == [True] * 4
    assert levels(source, 1) == [5]


def test_a_camera_that_runs_freely_is_waited_for() -> None:
    driver = Scripted([None, None, 3])
    assert levels(opened(driver), 1) == [3]
    assert driver.checks == 0  # the parent notices its silence


def test_a_camera_that_waits_for_its_trigger_is_asked_whether_it_is_there() -> None:
    driver = Scripted([None, 1, None])
    source = opened(driver, trigger="Line1")
    assert [source.grab() for _ in range(3)] == [None, True, None]
    assert driver.checks == 1  # twice a second at most
    assert driver.features.written["TriggerSource"] == "Line1"
    gone = Scripted([None])
    source = opened(gone, trigger="Line1")
    gone.is_gone = True
    with pytest.raises(CameraError, match="camera genicam:1 is gone: no answer"):
        source.grab()


def test_a_request_reaches_the_camera() -> None:
    driver = Scripted([])
    opened(driver, trigger="software").trigger()
    assert driver.features.executed == ["TriggerSoftware"]


def test_what_it_did_not_take_is_known_once_it_is_open() -> None:
    assert opened(Scripted([]), packet_bytes=9000).refused_settings == ["packet_bytes: 9000"]


def test_a_camera_that_does_not_open_says_why_and_is_closed() -> None:
    driver = Scripted([], is_gone=True)
    source = GenicamSource("genicam:1", lambda: driver, CameraSettings(), None)
    with pytest.raises(CameraError, match="camera genicam:1 does not open: no route"):
        source.open()
    source.close()
    source.close()
    assert driver.closed == 1


def test_it_begins_again_after_it_was_closed() -> None:
    drivers = [Scripted([7, 9]), Scripted([1])]
    source = GenicamSource("genicam:1", lambda: drivers.pop(0), CameraSettings(), None)
    source.open()
    assert levels(source, 2) == [7, None]
    source.close()
    source.open()
    assert levels(source, 1) == [1]
