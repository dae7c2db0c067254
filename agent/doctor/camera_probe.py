"""Checks the camera of a station: settings, size and rate of its frames."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.camera.genicam.source import GenicamSource
from agent.camera.sources import check_libraries, source_from
from agent.config.model import load
from agent.doctor.finding import Finding, fault, ok
from agent.doctor.genicam_devices import PACKETS_REMEDY
from agent.doctor.system import is_agent_running
from agent.errors import CameraError
from agent.from_config import camera_settings
from calibration.imaging.thinned_sample import ThinnedSample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.camera.camera_settings import CameraSettings
    from agent.camera.sources import Source
    from calibration.imaging.preprocess import Image

_FIRST_FRAME_S = 10.0
_SETTLING_S, _COUNTING_S = 0.5, 2.0
_KEPT, _KEPT_EVERY_S = 8, 0.25


def camera(config: str, frames: str | None = None) -> Iterator[Finding]:
    """Check size and rate of the frames. A live camera that a running agent uses is left alone.

    Some frames are kept in the folder ``frames``, for the probe of the network.
    """
    loaded = load(Path(config))
    settings = camera_settings(loaded.camera)
    source = source_from(loaded.camera.source, loaded.camera.frames_per_s, settings)
    if source.live and is_agent_running(loaded.state_dir):
        yield ok("camera", f"{source.name}: not opened, because the running agent uses it")
        return
    try:
        check_libraries(loaded.camera.source, settings)
        source.open()
        frame = _first_frame(source)
        rate, kept = _rate(source, frame)
    except CameraError as error:
        yield fault("camera", error)
        return
    finally:
        source.close()  # some network cameras serve one client, and notice only after a minute that it is gone
    for number, each in enumerate(kept if frames else ()):
        np.save(Path(str(frames), f"{number:02}.npy"), each)
    rows, columns = frame.shape[:2]
    yield from _setting_findings(source, settings, rows, columns)
    if isinstance(source, GenicamSource) and source.incomplete:
        what = f"{source.incomplete} frames were incomplete, in about {_COUNTING_S:g} s: packets are lost on the way"
        yield Finding("camera packets", "fault", what, PACKETS_REMEDY)
    if source.is_rescaled:
        what = (
            "its frames are not JPEG: a change of resolution while it runs cannot be noticed, since OpenCV scales them"
        )
        remedy = "keep it at one resolution, and calibrate with what it sends; or use the camera's MJPEG stream"
        yield Finding("camera stream", "warning", what, remedy)
    size = {"width": float(columns), "height": float(rows)}
    found = f"{source.name}: {columns}x{rows} pixels"
    if source.live:
        yield ok("camera", f"{found}, {rate:.1f} frames/s over {_COUNTING_S:g} s", **size, frames_per_s=rate)
    elif loaded.camera.playback == "fast":
        yield ok("camera", f"{found}, a file, every frame as fast as possible", **size)
    else:
        yield ok("camera", f"{found}, a file at {rate:g} frames/s", **size, frames_per_s=rate)


def _setting_findings(source: Source, settings: CameraSettings, rows: int, columns: int) -> Iterator[Finding]:
    remedy = "see what it offers: v4l2-ctl --list-formats-ext --list-ctrls-menus"
    if isinstance(source, GenicamSource):
        remedy = "see what it offers: arv-tool-0.8 control, or the viewer of its vendor"
    for refused in source.refused_settings:
        yield Finding("camera setting", "warning", f"not accepted: {refused}", remedy)
    if source.live and not settings.fits(rows, columns):
        what = f"its frames have {columns}x{rows} pixels, not {settings.width}x{settings.height}, and would be dropped"
        remedy = "correct camera.width and camera.height, or the camera's own settings"
        yield Finding("camera size", "fault", what, remedy)


def _first_frame(source: Source) -> Image:
    deadline_s = time.monotonic() + _FIRST_FRAME_S
    while time.monotonic() < deadline_s and (is_grabbed := source.grab()) is not False:
        if not is_grabbed:
            source.trigger()
        elif (frame := source.retrieve()) is not None:
            return frame
    raise CameraError(
        what=f"{source.name} opens, but delivers no frame within {_FIRST_FRAME_S:g} s",
        remedy="check its cable and power, and that its format is one that OpenCV reads",
    )


def _rate(source: Source, first: Image) -> tuple[float, list[Image]]:
    """Frames a second, and some frames of two seconds; of a file, of what is read in that time."""
    if not source.live:
        return source.frames_per_s, _sample(source, first)
    _grabs_per_s(source, _SETTLING_S)  # a stream delivers its buffered frames in a burst
    kept: list[Image] = []
    return _grabs_per_s(source, _COUNTING_S, kept), kept or [first]


def _sample(source: Source, first: Image) -> list[Image]:
    end_s, sample = time.monotonic() + _COUNTING_S, ThinnedSample(_KEPT)
    sample.offer(first)
    while time.monotonic() < end_s and source.grab():
        frame = source.retrieve()
        if frame is not None:
            sample.offer(frame)
    return sample.images


def _grabs_per_s(source: Source, duration_s: float, kept: list[Image] | None = None) -> float:
    """Frames a second; adds some of them to ``kept``."""
    start_s = time.monotonic()
    frames = 0
    while time.monotonic() < start_s + duration_s:
        is_grabbed = source.grab()
        if is_grabbed is False:
            raise CameraError(what=f"{source.name} stops after some frames", remedy="check its cable and its power")
        if not is_grabbed:
            source.trigger()
            continue
        frames += 1
        if isinstance(source, GenicamSource):
            source.retrieve()  # it is cheap, and shows how many are complete
        is_due = kept is not None and time.monotonic() >= start_s + len(kept) * _KEPT_EVERY_S
        if kept is not None and is_due and (frame := source.retrieve()) is not None:
            kept.append(frame)
    return frames / (time.monotonic() - start_s)
