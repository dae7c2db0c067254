"""``fit CAMERA``: images of good parts are recorded first, by `shiftwatch-agent capture`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer

from calibration.bundle.bundle import refuse_existing
from calibration.terminal import say


def images_from(source: str, out: Path, count: int, roi: str | None, *, settled: bool) -> Path:
    """The images of a source; those of a camera are recorded into ``BUNDLE.images``, next to the future bundle.

    A folder that has images already is continued. Calibration knows no cameras, so that the command of the agent runs
    as a program of its own.

    Args:
        source: A file, a folder, or a camera, to which the other arguments apply.
        out: The bundle.
        count: Images to have in the folder.
        roi: Where parts come and go, ``X,Y,WIDTH,HEIGHT``; None: anywhere in the frame.
        settled: One image of each part that comes and stands still.

    Raises:
        BundleError: The bundle exists.
        typer.Exit: It failed, and has said why.
    """
    if not _is_camera(source):
        return Path(source)
    refuse_existing(out)
    folder = out.with_name(f"{out.name}.images")
    say(f"recording {count} images of good parts into {folder}; Ctrl-C ends this, and calibration begins")
    command = [sys.executable, "-m", "agent", "capture", str(folder), "--camera", source, "--count", str(count)]
    command += ["--settled", *(["--roi", roi] if roi else [])] if settled else ["--all"]
    ended = subprocess.run(command, check=False)  # noqa: S603 - our own program
    if ended.returncode:
        raise typer.Exit(ended.returncode)
    return folder


def _is_camera(source: str) -> bool:
    """Whether this is a device number or file, a URL or a GStreamer pipeline, and no file or folder."""
    path = Path(source)
    return (
        not path.is_file()
        and not path.is_dir()
        and (source.isdecimal() or "://" in source or " ! " in source or str(path.resolve()).startswith("/dev/video"))
    )
