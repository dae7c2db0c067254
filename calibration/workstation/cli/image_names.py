"""Files of image names: those to leave out, and those that look suspicious."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.errors import SettingError
from calibration.imaging.image_files import IMAGE_SUFFIXES
from calibration.workstation.output_files import accessible

if TYPE_CHECKING:
    from collections.abc import Sequence

_ONE_A_LINE = "give the name of an image, or a file with one image name a line"
_COMMENT = re.compile(r"(?:^|\s)#")  # not inside a word: frames of a video are named line3.mp4#12


def names_of(text: str) -> frozenset[str]:
    """The name itself, if it is that of an image or of a frame of a video (`line3.mp4#12`); or those in a file.

    Raises:
        SettingError: Neither, or not a readable text file.
    """
    is_image = "#" in text or Path(text).suffix.lower() in IMAGE_SUFFIXES
    return frozenset({text}) if is_image else names_in(Path(text))


def names_in(file: Path) -> frozenset[str]:
    """Read names of images, one a line; a ``#`` at the start of a line or after a blank begins a comment.

    Raises:
        SettingError: Not a readable text file.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")  # names of files need not be UTF-8
    except OSError as error:
        raise SettingError(what=f"cannot read {file.absolute()}: {error.strerror}", remedy=_ONE_A_LINE) from error
    if "\0" in text:
        raise SettingError(what=f"{file.absolute()} is not text in UTF-8", remedy=_ONE_A_LINE)
    lines = text.split("\n")
    return frozenset(name for line in lines if (name := _COMMENT.split(line, maxsplit=1)[0].strip()))


def write_names(file: Path, names: Sequence[str]) -> None:
    """Write names that ``names_in`` reads.

    Raises:
        StorageError: Not writable.
    """
    with accessible(file, "--suspicious FILE"):
        file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8", errors="surrogateescape")
