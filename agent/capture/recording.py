"""Writes frames of a camera into a folder, as the camera gives them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import cv2

from agent.errors import CameraError
from calibration.atomic_file import replace_file
from calibration.errors import StorageError
from calibration.imaging.image_files import read_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.camera import Camera, Frame
    from agent.capture.selection import Selection

_FIRST_FRAME_S = 15.0
_SUFFIX = ".png"


@dataclass
class Recording:
    """What was recorded so far.

    Attributes:
        kept: Images in the folder, with those of earlier recordings.
        frames: Frames received.
        damaged: Frames that could not be decoded; they are not kept.
        lost: Why the camera gives no frames now; empty while it does.
        elapsed_s: Time since the start.
    """

    kept: int
    frames: int = 0
    damaged: int = 0
    lost: str = ""
    elapsed_s: float = 0.0


def record(camera: Camera, selection: Selection, folder: Path, is_enough: Callable[[Recording], bool]) -> Recording:
    """Write each selected frame as a PNG file named by its time of capture; files that exist stay.

    Args:
        camera: Entered already.
        selection: Which frames to keep.
        folder: Created if it does not exist.
        is_enough: Asked after each frame, and twice a second without one; ends the recording.

    Raises:
        CameraError: No frame came within 15 s, or the camera ended with an error.
        StorageError: A file cannot be written; those before are complete.
        DatasetError: The watched region reaches outside the frame.
    """
    start_s, done = time.monotonic(), Recording(prepared_folder(folder))
    if is_enough(done):
        return done
    try:
        for frame in camera:
            done.elapsed_s = time.monotonic() - start_s
            if frame is not None:
                done.frames, done.damaged, done.lost = done.frames + 1, done.damaged + frame.is_damaged, ""
                if not frame.is_damaged and selection(frame):
                    write_frame(folder, frame)
                    done.kept += 1
            elif done.frames or done.elapsed_s < _FIRST_FRAME_S:
                done.lost = camera.reason
            else:
                raise CameraError(
                    what=f"no frame within {_FIRST_FRAME_S:.0f} s: {camera.reason or 'the camera is silent'}",
                    remedy="check address, cable and power; shiftwatch-agent doctor lists the cameras of this device",
                )
            if is_enough(done):
                break
    finally:
        done.kept = prepared_folder(folder)  # an interrupt may come between a file and its count
    return done


def prepared_folder(folder: Path) -> int:
    """Create the folder; returns the number of images in it.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return sum(path.suffix == _SUFFIX for path in folder.iterdir())
    except OSError as error:
        raise _not_writable(folder, error) from error


def size_of_images(folder: Path) -> tuple[int, int] | None:
    """Width and height of the images in a folder, of which the first is looked at; None if it has none."""
    first = next((path for path in sorted(folder.glob(f"*{_SUFFIX}"))), None)
    if first is None:
        return None
    rows, columns = read_image(first).shape[:2]
    return columns, rows


def write_frame(folder: Path, frame: Frame) -> Path:
    """Write a frame as a PNG file named by its time of capture; a file that exists stays.

    Raises:
        StorageError: It cannot be written.
    """
    time_ms = frame.captured_at_ms
    while (path := folder / _name(time_ms)).exists():
        time_ms += 1
    try:
        replace_file(path, cv2.imencode(_SUFFIX, frame.image)[1].tobytes())
    except OSError as error:
        raise _not_writable(path, error) from error
    return path


def _name(time_ms: int) -> str:
    """Names in the order of time: ``20261130-141502-087.png``."""
    return f"{datetime.fromtimestamp(time_ms // 1000).astimezone():%Y%m%d-%H%M%S}-{time_ms % 1000:03}{_SUFFIX}"


def _not_writable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        what=f"cannot write {path.absolute()}: {error.strerror}",
        remedy="free space there, fix its permissions, or name another folder",
    )
