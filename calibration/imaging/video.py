"""Reads videos, streams and devices by OpenCV; JPEG frames are decoded as image files are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from calibration.errors import DatasetError
from calibration.imaging.image_files import decode_image
from calibration.imaging.preprocess import as_bgr8
from calibration.imaging.utf8_name import utf8_name

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.imaging.preprocess import Image

_JPEG_CODES = frozenset({"MJPG", "JPEG"})


class VideoReader:
    """Reads the frames of an open capture.

    JPEG frames are taken as they are stored or sent, and decoded here. So the same bytes give the same pixels in a file
    and in a video, each frame has its own size (OpenCV scales all to the size of the first), and one damaged frame is
    not the end (FFmpeg stops there).

    Attributes:
        gives_jpegs: Whether its frames are JPEG. If not, all have the size of the first.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self.gives_jpegs = _take_jpegs(capture)

    def grab(self) -> bool:
        """Take the next frame, undecoded; false at the end."""
        return self._capture.grab()

    def retrieve(self) -> Image:
        """The frame just grabbed, (rows, columns, 3), uint8, BGR.

        Raises:
            DatasetError: It is damaged, or of a type that is not used here.
        """
        try:
            decoded, image = self._capture.retrieve()
        except cv2.error:
            decoded, image = False, None
        if not decoded or image is None:
            raise DatasetError(what="the frame cannot be decoded", remedy="check the video or the camera")
        return decode_image(image.tobytes(), "the frame") if self.gives_jpegs else as_bgr8(image)

    def release(self) -> None:
        """Close it."""
        self._capture.release()


def open_video(path: Path) -> VideoReader | None:
    """A video file; None if OpenCV cannot open it."""
    capture = _opened(path)
    return VideoReader(capture) if capture.isOpened() else None


def count_frames(path: Path) -> int:
    """Number of frames of a video file: what it states, or more if there are more. 0 if it cannot be opened.

    MJPEG and H.264 without a container, and WebM from a browser, do not state it.
    """
    capture = _opened(path)
    stated = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    capture.set(cv2.CAP_PROP_FORMAT, -1)  # packets, undecoded: as fast as the disk
    packets = _count(capture)
    return stated if packets <= stated else _count(VideoReader(_opened(path)))


def _opened(path: Path) -> cv2.VideoCapture:
    with utf8_name(path) as name:
        return cv2.VideoCapture(name)


def _count(frames: cv2.VideoCapture | VideoReader) -> int:
    count = 0
    while frames.grab():
        count += 1
    frames.release()
    return count


def _take_jpegs(capture: cv2.VideoCapture) -> bool:
    """Let a capture give JPEG frames undecoded; whether it does."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    if code <= 0 or code.to_bytes(4, "little").decode("latin-1").upper() not in _JPEG_CODES:
        return False
    if capture.get(cv2.CAP_PROP_ORIENTATION_META) > 0:  # stands in the container, where only OpenCV sees it
        return False
    if capture.getBackendName() == "V4L2":
        return capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return capture.set(cv2.CAP_PROP_FORMAT, -1)
