"""Sources of frames: devices, streams, pipelines, videos and image folders.

A source only opens, grabs, decodes and closes. Cameras retry, pace and count.
"""

from __future__ import annotations

import logging
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import cv2

from agent.camera.camera_settings import DEFAULT_SETTINGS, CameraSettings, apply
from agent.camera.folder_source import FolderSource
from agent.camera.genicam.factory import SOURCES, check_library, genicam_source
from agent.camera.shown_source import without_password
from agent.errors import CameraError
from calibration.errors import DatasetError, install_extra
from calibration.imaging.utf8_name import utf8_name
from calibration.imaging.video import VideoReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.camera.contract import Stamp
    from calibration.imaging.preprocess import Image

SourceKind: TypeAlias = Literal["device", "genicam", "stream", "pipeline", "path"]

_VIDEO_FRAMES_PER_S = 25.0
_FASTEST_VIDEO_FRAMES_PER_S = 1000.0
_STREAM_TIMEOUT_S = 5.0
_SOONER = 0.8
"""FFmpeg gives up a little before its process is killed, so that it can close the connection to the camera."""

_QUIET = "-8"
"""What FFmpeg prints may contain addresses with passwords, and text that a camera sends; CameraError says more."""

_log = logging.getLogger(__name__)
# CameraError says more, without passwords. OpenCV 4 has the function at its top.
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)


class Source(Protocol):
    """Gives frames, one after the other.

    Order of calls: ``open``, then ``grab`` and (if it was true) ``retrieve`` in turn, then ``close``. After ``close``
    it may be opened again, and starts from the beginning. All calls come from one thread at a time.
    """

    name: str
    live: bool
    frames_per_s: float
    refused_settings: Sequence[str]
    """Settings that it did not take, as text; known once it is open."""
    is_rescaled: bool
    """Whether OpenCV gives all frames the size of the first, whatever is sent; known once it is open."""

    @property
    def stamp(self) -> Stamp | None:
        """What the camera says of the frame just retrieved; None where it says nothing."""

    def open(self) -> None:
        """Open the source, or raise CameraError. ``frames_per_s`` is known afterwards."""

    def grab(self) -> bool | None:
        """Take the next frame, undecoded; false at the end of a file and when a live source is lost.

        None, every now and then, while a camera waits for its trigger, and answers.
        """

    def retrieve(self) -> Image | None:
        """The frame just grabbed, (rows, columns, 3), uint8, BGR, not shared; None if it cannot be decoded."""

    def trigger(self) -> None:
        """Let a camera that waits for this take an image now; called between two grabs."""

    def close(self) -> None:
        """Close the source; it may be closed already."""


def kind_of(source: int | str) -> SourceKind:
    """Kind of a source; nothing is opened.

    A device is a number, a character device or a link to one, or what may become one: a name in ``/dev``, where udev
    makes the names of a camera when it is plugged in.
    """
    if isinstance(source, int) or source.isdecimal():
        return "device"
    if source.startswith(SOURCES):
        return "genicam"
    if not is_file_name(source):
        return "pipeline" if " ! " in source else "stream"
    return "device" if _is_device(Path(os.path.realpath(source))) else "path"


def is_file_name(source: str) -> bool:
    """Whether it names a file, a folder or a device file."""
    is_address = " ! " in source or "://" in source or source.startswith(SOURCES)
    return not (source.isdecimal() or is_address)


def _is_device(path: Path) -> bool:
    if path.exists():
        return path.is_char_device()
    return path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm")  # noqa: S108 - no file is made there


def source_from(
    source: int | str, frames_per_s: float | None = None, settings: CameraSettings = DEFAULT_SETTINGS
) -> Source:
    """The source of that name, not yet opened.

    Args:
        source: Device number or file, GenICam camera (``genicam:SERIAL``), rtsp or http(s) URL, GStreamer pipeline (has
            `` ! ``), video or folder.
        frames_per_s: Rate of a file; the rate to set at a device or a GenICam camera, which may give another.
        settings: For a device or a GenICam camera.
    """
    kind = kind_of(source)
    if kind == "genicam":
        return genicam_source(str(source), frames_per_s, settings)
    if kind == "path" and Path(str(source)).is_dir():
        return FolderSource(Path(str(source)), frames_per_s)
    if settings.decoder == "av":
        return _av_source(str(source), frames_per_s, _STREAM_TIMEOUT_S, _STREAM_TIMEOUT_S)
    return VideoSource(source, frames_per_s, settings)


def live_source(
    source: int | str,
    frames_per_s: float | None,
    settings: Mapping[str, Any],
    open_timeout_s: float,
    read_timeout_s: float,
) -> Source:
    """A live source from JSON values, for a capture process; see `source_from`."""
    if kind_of(source) == "genicam":
        return genicam_source(str(source), frames_per_s, CameraSettings(**settings))
    opened_within_s, read_within_s = _SOONER * open_timeout_s, _SOONER * read_timeout_s
    if settings.get("decoder") == "av":
        return _av_source(str(source), frames_per_s, opened_within_s, read_within_s)
    return VideoSource(source, frames_per_s, CameraSettings(**settings), opened_within_s, read_within_s)


def check_libraries(source: int | str, settings: CameraSettings) -> None:
    """Raise CameraError if what reads such a source is not installed."""
    kind = kind_of(source)
    if kind == "pipeline" and not has_gstreamer():
        raise no_gstreamer(str(source))
    if kind == "genicam":
        check_library(str(source))
    if settings.decoder == "av" and find_spec("av") is None:
        raise CameraError(what="camera.decoder: av needs PyAV", remedy=install_extra("av"))


def _av_source(source: str, frames_per_s: float | None, open_timeout_s: float, read_timeout_s: float) -> Source:
    from agent.camera.av_source import AvSource  # noqa: PLC0415 - an extra

    return AvSource(source, frames_per_s, open_timeout_s, read_timeout_s, live=kind_of(source) != "path")


class VideoSource:
    """Everything that ``cv2.VideoCapture`` reads; see `source_from`. The time-outs are for streams."""

    stamp = None

    def __init__(
        self,
        source: int | str,
        frames_per_s: float | None = None,
        settings: CameraSettings = DEFAULT_SETTINGS,
        open_timeout_s: float = _STREAM_TIMEOUT_S,
        read_timeout_s: float = _STREAM_TIMEOUT_S,
    ) -> None:
        kind = kind_of(source)
        self.name = without_password(str(source))
        self.live = kind != "path"
        self.frames_per_s = frames_per_s or _VIDEO_FRAMES_PER_S
        self.refused_settings: Sequence[str] = ()
        self.is_rescaled = False
        self._settings = settings
        self._timeouts_ms = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: round(open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(read_timeout_s * 1000),
        }
        self._source = source
        self._kind = kind
        self._asked_frames_per_s = frames_per_s
        self._reader: VideoReader | None = None

    def open(self) -> None:
        """See Source."""
        capture = self._opened()
        if not capture.isOpened():
            capture.release()
            raise self._refusal()
        if self._kind == "device":
            self.refused_settings = apply(self._settings, self._asked_frames_per_s, capture)
        self._reader = VideoReader(capture)
        self.is_rescaled = self._kind == "stream" and not self._reader.gives_jpegs
        if self._kind == "path" and self._asked_frames_per_s is None:
            stored = capture.get(cv2.CAP_PROP_FPS)
            self.frames_per_s = stored if 0 < stored <= _FASTEST_VIDEO_FRAMES_PER_S else _VIDEO_FRAMES_PER_S

    def grab(self) -> bool:
        """See Source."""
        return self._reader is not None and self._reader.grab()

    def retrieve(self) -> Image | None:
        """See Source."""
        if self._reader is None:
            return None
        try:
            return self._reader.retrieve()
        except DatasetError:
            return None

    def trigger(self) -> None:
        """See Source; nothing here waits for it."""

    def close(self) -> None:
        """See Source."""
        if self._reader is not None:
            self._reader.release()
            self._reader = None

    def _opened(self) -> cv2.VideoCapture:
        text = str(self._source)
        if self._kind == "pipeline":
            return cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
        if self._kind == "stream":
            # UDP, FFmpeg's default, tears frames on a busy network. A variable that is already set stays.
            os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
            os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _QUIET)
            return cv2.VideoCapture(text, cv2.CAP_FFMPEG, [n for pair in self._timeouts_ms.items() for n in pair])
        if self._kind == "path":
            with utf8_name(text) as name:
                return cv2.VideoCapture(name)
        return cv2.VideoCapture(int(text) if text.isdecimal() else text, cv2.CAP_V4L2)

    def _refusal(self) -> CameraError:
        if self._kind == "path":
            path = Path(str(self._source)).absolute()
            if path.exists():
                remedy = "check that this user may read it and that it is a video; for images, give their folder"
                return CameraError(what=f"{without_password(str(path))} does not open as a video", remedy=remedy)
            remedy = "check the path; relative paths in the configuration start at the configuration file's folder"
            return CameraError(what=f"no video or image folder at {without_password(str(path))}", remedy=remedy)
        if self._kind == "device":
            present = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
            remedy = f"check the cable, the number and that this user may read it (group video); /dev/video*: {present}"
            return CameraError(what=f"camera {self.name} does not open", remedy=remedy)
        if self._kind == "stream":
            remedy = "check address, port, path, user and password, and that no other viewer holds the stream"
            return CameraError(what=f"stream {self.name} does not open", remedy=remedy)
        if not has_gstreamer():
            return no_gstreamer(self.name)
        remedy = "try it with gst-launch-1.0; it must end in: ! videoconvert ! video/x-raw,format=BGR ! appsink"
        return CameraError(what=f"pipeline {self.name!r} does not open", remedy=remedy)


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with GStreamer."""
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None


def no_gstreamer(pipeline: str) -> CameraError:
    """The error for a pipeline, if OpenCV has no GStreamer."""
    remedy = (
        "use the OpenCV of the system: apt install python3-opencv, an environment with --system-site-packages, and pip "
        "uninstall opencv-python-headless (agent/camera/README.md); or give a device number, an rtsp:// URL or a file"
    )
    return CameraError(what=f"pipeline {without_password(pipeline)!r}: this OpenCV has no GStreamer", remedy=remedy)
