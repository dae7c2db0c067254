"""PyAV reads what OpenCV reads, and says when each frame was taken."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.camera import open_camera
from agent.camera.camera_settings import CameraSettings
from agent.camera.process_camera import Timeouts
from agent.camera.sources import source_from
from agent.errors import CameraError
from tests.support.network_camera import NetworkCamera
from tests.support.stations import good_parts, until

if TYPE_CHECKING:
    from pathlib import Path

    from agent.camera import Frame
    from agent.camera.sources import Source
    from calibration.imaging.preprocess import Image

pytest.importorskip("av", reason="needs the extra av")

AV = CameraSettings(decoder="av")


def video(path: Path, code: str, count: int = 20, frames_per_s: float = 12.5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), frames_per_s, (96, 72))
    for image in good_parts(count):
        writer.write(image)
    writer.release()
    return path


def read(source: Source) -> list[Image]:
    images = []
    source.open()
    while source.grab():
        image = source.retrieve()
        assert image is not None
        images.append(image)
    source.close()
    return images


@pytest.mark.parametrize(("name", "code", "most_different"), [("a.avi", "MJPG", 0), ("b.mp4", "mp4v", 4)])
def test_a_video_gives_the_frames_that_opencv_gives(tmp_path: Path, name: str, code: str, most_different: int) -> None:
    path = video(tmp_path / name, code)
    ours, theirs = read(source_from(str(path), settings=AV)), read(source_from(str(path)))
    assert len(ours) == len(theirs) == 20
    for image, other in zip(ours, theirs, strict=True):
        assert int(np.abs(image.astype(int) - other).max()) <= most_different


def test_each_frame_has_its_time_and_the_file_its_rate(tmp_path: Path) -> None:
    source = source_from(str(video(tmp_path / "a.mp4", "mp4v")), settings=AV)
    source.open()
    stamps = []
    while source.grab():
        source.retrieve()
        stamps.append(source.stamp)
    source.close()
    assert source.frames_per_s == 12.5
    assert [None if stamp is None else stamp.number for stamp in stamps] == list(range(20))
    times = [0 if stamp is None else stamp.time_ns for stamp in stamps]
    assert np.diff(times).tolist() == pytest.approx([80_000_000] * 19, abs=100_000)


def test_it_begins_again_after_it_was_closed(tmp_path: Path) -> None:
    source = source_from(str(video(tmp_path / "a.avi", "MJPG")), settings=AV)
    first, second = read(source), read(source)
    assert np.array_equal(first, second)


def test_a_damaged_frame_is_one_frame_and_not_the_end(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", "MJPG")
    content = bytearray(path.read_bytes())
    starts = [at for at in range(len(content)) if content[at : at + 3] == b"\xff\xd8\xff"]
    content[starts[5] : starts[5] + 200] = bytes(200)
    path.write_bytes(bytes(content))
    source = source_from(str(path), settings=AV)
    source.open()
    found = []
    while source.grab():
        found.append(source.retrieve() is not None)
    source.close()
    assert found == [number != 5 for number in range(20)]


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_what_is_no_video_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CameraError, match=r"a\.mp4 does not open as a video"):
        source_from(str(path), settings=AV).open()


def frames_of(address: str, count: int) -> list[Frame]:
    frames: list[Frame] = []
    with open_camera(address, settings=AV, timeouts=Timeouts(open_s=10, read_s=2)) as camera:
        in_vain = threading.Timer(30, camera.stop)
        in_vain.start()
        for frame in camera:
            if frame is not None:
                frames.append(frame)
            if len(frames) == count:
                camera.stop()
        in_vain.cancel()
    return frames


@pytest.mark.slow
def test_frames_of_a_stream_have_times_that_grow_and_their_own_sizes() -> None:
    small = [np.asarray(cv2.resize(image, (48, 36)), np.uint8) for image in good_parts(3)]
    with NetworkCamera(images=[*good_parts(3), *small]) as camera:
        frames = frames_of(camera.address, 12)
    assert {frame.image.shape[:2] for frame in frames} == {(72, 96), (36, 48)}
    numbers = [frame.stamp.number for frame in frames if frame.stamp is not None]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 12


@pytest.mark.slow
def test_a_stream_that_goes_silent_is_lost_in_time_and_its_password_is_not_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}/stream"
        camera = open_camera(address, settings=AV, timeouts=Timeouts(open_s=1.5, read_s=1))
        began_s = time.monotonic()
        with camera:
            thread = threading.Thread(target=lambda: list(camera))
            thread.start()
            until(lambda: "does not open" in camera.reason or "gives no frame" in camera.reason)
            assert time.monotonic() - began_s < 8
            assert "secret" not in camera.reason
            camera.stop()
            thread.join()
