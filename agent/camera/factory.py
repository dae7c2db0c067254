"""Makes the camera for a source."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.camera.camera_settings import DEFAULT_SETTINGS
from agent.camera.file_camera import FileCamera
from agent.camera.newest_frame import NewestFrameCamera
from agent.camera.process_camera import DEFAULT_TIMEOUTS, ProcessCamera
from agent.camera.shown_source import without_password
from agent.camera.sources import check_libraries, kind_of, live_source, source_from

if TYPE_CHECKING:
    from agent.camera.camera_settings import CameraSettings
    from agent.camera.contract import StationCamera
    from agent.camera.process_camera import Timeouts

Playback: TypeAlias = Literal["realtime", "fast"]


def open_camera(  # noqa: PLR0913 - each once
    source: int | str,
    playback: Playback = "realtime",
    frames_per_s: float | None = None,
    *,
    loop: bool = False,
    settings: CameraSettings = DEFAULT_SETTINGS,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> StationCamera:
    """The camera for a source; entering it opens the source.

    Args:
        source: Device number or file, GenICam camera (``genicam:SERIAL``), rtsp or http(s) URL, GStreamer pipeline
            (contains `` ! ``), video file or image folder.
        playback: For files: ``realtime`` plays at the file's own rate and drops frames that are not fetched in time, as
            a camera does; ``fast`` reads each frame on demand and drops none.
        frames_per_s: For files: the rate instead of their own (folders: 10). For a device or a GenICam camera: the rate
            to set.
        loop: Start a file again at its end.
        settings: For live sources.
        timeouts: For live sources.

    Raises:
        CameraError: This OpenCV cannot read such a source, or the library for it is not installed.
    """
    check_libraries(source, settings)
    if kind_of(source) != "path":
        arguments = {
            "source": source,
            "frames_per_s": frames_per_s,
            "settings": asdict(settings),
            "open_timeout_s": timeouts.open_s,
            "read_timeout_s": timeouts.read_s,
        }
        name = without_password(str(source))
        return NewestFrameCamera(ProcessCamera(name, live_source, arguments, settings=settings, timeouts=timeouts))
    found = source_from(source, frames_per_s, settings)
    if playback == "fast":
        return FileCamera(found, loop=loop)
    return NewestFrameCamera(FileCamera(found, loop=loop, paced=True))
