"""``fit CAMERA``: images of good parts are recorded first, by `shiftwatch-agent capture`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import typer

from calibration.bundle.bundle import refuse_existing
from calibration.plain_text import counted
from calibration.terminal import escape, say


def images_from(source: str, out: Path, count: int, roi: str | None, how: str) -> Path:
    """The images of a source; those of a camera are recorded into ``BUNDLE.images``, next to the future bundle.

    A folder that has images already is continued. Calibration knows no cameras, so that the command of the agent runs
    as a program of its own.

    Args:
        source: A file, a folder, or a camera, to which the other arguments apply.
        out: The bundle.
        count: Images to have in the folder.
        roi: Where parts come and go, ``X,Y,WIDTH,HEIGHT``; None: anywhere in the frame.
        how: ``--all``; ``--settled``, one image of each part that comes and stands still; ``--passing``, one of each
            part on a belt that does not stop, from a video as well.

    Raises:
        BundleError: The bundle exists.
        typer.Exit: It failed, and has said why.
    """
    if not _is_camera(source) and how != "--passing":
        return Path(source)
    refuse_existing(out)
    folder = out.with_name(f"{out.name}.images")
    images = f"{counted(count, 'image')} of good parts into {escape(str(folder))}"
    say(f"recording {images}; Ctrl-C ends the recording, and calibration begins")
    command = [sys.executable, "-m", "agent", "capture", str(folder), "--camera", source, "--count", str(count)]
    command += [how, *(["--roi", roi] if roi and how == "--settled" else [])]
    # Ctrl-C reaches both programs, and ends only the recording. A handler, unlike SIG_IGN, is not inherited.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        ended = subprocess.run(command, check=False)  # noqa: S603 - our own program
    finally:
        signal.signal(signal.SIGINT, before)
    if ended.returncode:
        raise typer.Exit(ended.returncode)
    return folder


def _is_camera(source: str) -> bool:
    """Whether this is a device, a GenICam camera, a URL or a GStreamer pipeline, and no file or folder."""
    if os.path.isfile(source) or os.path.isdir(source):  # noqa: PTH112, PTH113 - Path refuses a long pipeline
        return False
    is_device = str(Path(source).resolve()).startswith("/dev/video")
    is_genicam = source.startswith(("genicam:", "basler:", "gentl:"))
    return source.isdecimal() or "://" in source or " ! " in source or is_device or is_genicam
