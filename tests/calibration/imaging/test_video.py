"""Frames of videos: the same bytes give the same pixels as in a file, each frame for itself, all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.errors import DatasetError
from calibration.imaging.image_files import read_image
from calibration.imaging.video import VideoReader, count_frames, open_video
from tests.calibration.imaging.test_image_files import with_orientation
from tests.support.washers import washer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from calibration.imaging.preprocess import Image

WIDE = np.ascontiguousarray(washer(0, side=96)[:64])


def jpeg(image: Image) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def stream(path: Path, frames: Sequence[bytes]) -> Path:
    """MJPEG as cameras and v4l2-ctl write it."""
    path.write_bytes(b"".join(frames))
    return path


def encoded(path: Path, codec: str, size: int, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, (size, size))
    assert writer.isOpened()
    for number in range(count):
        writer.write(washer(number, side=size))
    writer.release()
    return path


def frames_of(path: Path) -> list[Image | str]:
    """The frames, or why they cannot be used."""
    video = open_video(path)
    assert video is not None
    frames: list[Image | str] = []
    while video.grab():
        frames.append(frame_of(video))
    video.release()
    return frames


def frame_of(video: VideoReader) -> Image | str:
    try:
        return video.retrieve()
    except DatasetError as error:
        return error.what


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("flags", [[], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]])
def test_the_same_bytes_give_the_same_pixels_as_a_file_and_in_a_video(
    tmp_path: Path, orientation: int, flags: list[int]
) -> None:
    content = with_orientation(cv2.imencode(".jpg", WIDE, flags)[1].tobytes(), orientation)
    file, video = tmp_path / "a.jpg", stream(tmp_path / "a.mjpeg", [content] * 3)
    file.write_bytes(content)
    for frame in frames_of(video):
        np.testing.assert_array_equal(frame, read_image(file))


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mov"])
def test_frames_of_jpeg_are_found_in_every_container(tmp_path: Path, name: str) -> None:
    video = open_video(encoded(tmp_path / name, "MJPG", 64, 3))
    assert video is not None
    assert video.gives_jpegs
    video.release()
    assert count_frames(tmp_path / name) == len(frames_of(tmp_path / name)) == 3


def test_each_frame_has_its_own_size(tmp_path: Path) -> None:
    images: list[Image] = [WIDE, WIDE[:32, :48], WIDE[:, :64], washer(0, side=200)]
    frames = frames_of(stream(tmp_path / "a.mjpeg", [jpeg(image) for image in images]))
    assert [frame.shape for frame in frames if not isinstance(frame, str)] == [image.shape for image in images]


def test_a_damaged_frame_is_one_damaged_frame(tmp_path: Path) -> None:
    whole = jpeg(WIDE)
    frames = frames_of(stream(tmp_path / "a.mjpeg", [whole, whole[: len(whole) // 2], whole, whole]))
    assert [isinstance(frame, str) for frame in frames] == [False, True, False, False]
    assert frames[1] == "the frame is truncated"


def test_other_codecs_are_left_to_opencv(tmp_path: Path) -> None:
    video = open_video(encoded(tmp_path / "a.mp4", "mp4v", 64, 3))
    assert video is not None
    assert not video.gives_jpegs
    video.release()
    assert len(frames_of(tmp_path / "a.mp4")) == 3


def test_frames_are_counted_where_a_video_does_not_state_their_number_or_too_few(tmp_path: Path) -> None:
    assert count_frames(stream(tmp_path / "a.mjpeg", [jpeg(WIDE)] * 7)) == 7
    parts = [encoded(tmp_path / f"{number}.ts", "mpg2", 64, 20).read_bytes() for number in range(2)]
    assert cv2.VideoCapture(str(tmp_path / "0.ts")).get(cv2.CAP_PROP_FRAME_COUNT) == 20
    joined = stream(tmp_path / "joined.ts", parts)
    assert count_frames(joined) == len(frames_of(joined)) > 35


def test_what_is_no_video_is_not_opened_and_has_no_frames(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_text("no video")
    assert open_video(tmp_path / "a.avi") is None
    assert count_frames(tmp_path / "a.avi") == 0
