"""One suite for every library that reaches GenICam cameras; the cameras are emulated, the protocols are real."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.camera import open_camera
from agent.camera.camera_settings import CameraSettings
from agent.camera.process_camera import Timeouts
from tests.support.genicam_cameras import GigeCamera, basler_source, gentl_source, only_gige_camera
from tests.support.real_broker import halt
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from agent.camera import Frame
    from calibration.imaging.preprocess import Image

pytestmark = pytest.mark.waits

LOST_WITHIN_S = 4.0
"""The time-out of 2 s, and a busy machine."""
BACK_WITHIN_S = 30.0


@dataclass(frozen=True)
class Kind:
    """A camera, and what it has.

    Attributes:
        source: As in the configuration.
        size: Its columns and rows after the start.
        has_trigger: It can wait for a command.
    """

    source: str
    size: tuple[int, int]
    has_trigger: bool


@pytest.fixture(params=["aravis", "basler", "gentl"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    if request.param == "basler":
        yield Kind(basler_source(monkeypatch), (1024, 1040), has_trigger=True)
    elif request.param == "gentl":
        yield Kind(gentl_source("1"), (400, 400), has_trigger=False)
    else:
        with only_gige_camera(), GigeCamera("SW1") as camera:
            yield Kind(camera.source, (512, 512), has_trigger=True)


class Watched:
    """A camera that is read by a thread, as the loop does it."""

    def __init__(self, source: str, frames_per_s: float | None = None, **settings: object) -> None:
        self.camera = open_camera(
            source,
            frames_per_s=frames_per_s,
            settings=CameraSettings(**settings),  # type: ignore[arg-type]
            timeouts=Timeouts(open_s=10, read_s=2),
        )
        self.frames: list[Frame] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self.camera.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.camera.stop()
        self._thread.join()
        self.camera.__exit__(*exception)

    def wait_for(self, frames: int) -> list[Frame]:
        """The next frames, as soon as there are this many."""
        first = len(self.frames)
        until(lambda: len(self.frames) >= first + frames, BACK_WITHIN_S)
        return self.frames[first : first + frames]

    def _read(self) -> None:
        for frame in self.camera:
            if frame is not None:
                self.frames.append(frame)


def capture_process() -> int:
    """The only child of this process that captures."""
    children = [int(child) for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()]
    (found,) = [child for child in children if b"capture_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return found


@pytest.mark.slow
def test_frames_come_in_colour_with_the_number_that_the_camera_gave_them(kind: Kind) -> None:
    with Watched(kind.source) as watched:
        frames = watched.wait_for(10)
        assert (watched.camera.state, watched.camera.reason) == ("running", "")
    columns, rows = kind.size
    assert {frame.image.shape for frame in frames} == {(rows, columns, 3)}
    assert not any(frame.is_damaged for frame in frames)
    assert any(frame.image.any() for frame in frames)
    numbers = [frame.stamp.number for frame in frames if frame.stamp is not None]
    assert len(numbers) == 10
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    assert all(0 < step % 65535 < 10 for step in steps)


@pytest.mark.slow
def test_every_frame_is_handed_out_or_counted(kind: Kind) -> None:
    with Watched(kind.source) as watched:
        watched.wait_for(10)
    camera = watched.camera
    assert camera.captured == len(watched.frames) + sum(camera.dropped.values())


@pytest.mark.slow
def test_a_region_and_a_rate_are_set_and_what_it_does_not_have_is_reported(kind: Kind) -> None:
    with Watched(kind.source, frames_per_s=8, width=160, height=120, white_balance=5000.0) as watched:
        frames = watched.wait_for(9)
        assert watched.camera.refused_settings == ["white_balance: asked for 5000, but it has no such feature"]
    assert {frame.image.shape for frame in frames} == {(120, 160, 3)}
    took_s = (frames[-1].captured_ns - frames[0].captured_ns) / 1e9
    assert took_s > 0.8  # eight intervals of 125 ms; a free-running camera of them needs 0.4 s at most


@pytest.mark.slow
def test_a_capture_process_that_is_killed_is_replaced(kind: Kind) -> None:
    with Watched(kind.source) as watched:
        watched.wait_for(2)
        first = capture_process()
        os.kill(first, signal.SIGKILL)
        until(lambda: watched.camera.state == "lost")
        watched.wait_for(2)
        assert watched.camera.state == "running"
        assert capture_process() != first


@pytest.mark.slow
def test_a_capture_process_whose_library_hangs_is_replaced(kind: Kind) -> None:
    with Watched(kind.source) as watched:
        watched.wait_for(2)
        first = capture_process()
        os.kill(first, signal.SIGSTOP)
        began_s = time.monotonic()
        until(lambda: watched.camera.state == "lost")
        assert time.monotonic() - began_s < LOST_WITHIN_S
        assert "gives no frame within 2 s" in watched.camera.reason
        watched.wait_for(2)
        assert capture_process() != first


@pytest.mark.slow
def test_a_camera_with_a_software_trigger_sends_one_frame_for_each_and_is_alive_meanwhile(kind: Kind) -> None:
    if not kind.has_trigger:
        with Watched(kind.source, trigger="software") as watched:
            until(lambda: "did not take camera.trigger software" in watched.camera.reason)
        return
    with Watched(kind.source, trigger="software") as watched:
        until(lambda: watched.camera.state == "running")
        threading.Event().wait(3.0)  # longer than the time-out
        assert (watched.camera.state, len(watched.frames)) == ("running", 0)
        for number in range(1, 6):
            asked_ns = time.monotonic_ns()
            watched.camera.trigger()
            until(lambda number=number: len(watched.frames) == number)  # type: ignore[misc]
            assert watched.frames[-1].captured_ns > asked_ns
        threading.Event().wait(0.5)
        assert len(watched.frames) == 5


@pytest.mark.slow
def test_a_camera_that_is_not_there_is_lost_and_named(kind: Kind) -> None:
    absent = kind.source.split("#")[0].rstrip("SW1") + ("#S9" if "#" in kind.source else "S9")
    with Watched(absent) as watched:
        until(lambda: "no GenICam camera S9 answers" in watched.camera.reason)


@pytest.mark.slow
@pytest.mark.parametrize("trigger", ["off", "Line0"])
def test_a_gige_camera_that_is_killed_is_noticed_in_two_seconds_and_comes_back(trigger: str) -> None:
    with only_gige_camera(), GigeCamera("SW2") as camera, Watched(camera.source, trigger=trigger) as watched:
        until(lambda: watched.camera.state == "running")
        camera.kill()
        began_s = time.monotonic()
        until(lambda: watched.camera.state == "lost")
        assert time.monotonic() - began_s < LOST_WITHIN_S
        threading.Event().wait(1.0)
        camera.start()
        until(lambda: watched.camera.state == "running", BACK_WITHIN_S)


@pytest.mark.slow
def test_a_gige_camera_that_hangs_is_noticed_and_goes_on_when_it_does() -> None:
    with only_gige_camera(), GigeCamera("SW3") as camera, Watched(camera.source) as watched:
        watched.wait_for(2)
        assert camera.process is not None
        halt(camera.process)
        began_s = time.monotonic()
        until(lambda: watched.camera.state == "lost")
        assert time.monotonic() - began_s < LOST_WITHIN_S
        camera.process.send_signal(signal.SIGCONT)
        watched.wait_for(2)


def is_gradient(grey: Image) -> bool:
    """Whether this is all of the image that Aravis' camera sends: one level more with each row and column, to 254."""
    steps = {int(step) for axis in (0, 1) for step in np.unique(np.diff(grey, axis=axis))}
    return steps == {1, 2}  # from 254 to 0 it is 2, modulo 256


@pytest.mark.slow
def test_a_frame_with_missing_packets_is_damaged_and_never_shown() -> None:
    with only_gige_camera(), GigeCamera("SW4", lost_packets=2) as camera, Watched(camera.source) as watched:
        until(lambda: sum(frame.is_damaged for frame in watched.frames) >= 5, BACK_WITHIN_S)
        whole = [frame for frame in watched.frames if not frame.is_damaged]
    assert whole
    assert all(is_gradient(frame.image[:, :, 0]) for frame in whole)
    assert not any(frame.image.any() for frame in watched.frames if frame.is_damaged)


@pytest.mark.slow
def test_a_gige_camera_that_loses_packets_of_every_frame_is_lost_with_the_reason() -> None:
    with only_gige_camera(), GigeCamera("SW5", lost_packets=500) as camera, Watched(camera.source) as watched:
        until(lambda: "gives no frame that is whole and can be decoded" in watched.camera.reason, 2 * BACK_WITHIN_S)
    assert not any(not frame.is_damaged for frame in watched.frames)
