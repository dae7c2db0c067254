"""What ``--align`` and ``--ignore`` stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from calibration.errors import SettingError
from calibration.imaging.image_files import read_image
from calibration.imaging.region import to_grey
from calibration.workstation.cli import parse
from calibration.workstation.fit.learn_preprocess import AUTO_PX, PreprocessRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.workstation.fit.learn_preprocess import Area

_AUTO = "auto"
_WHITE = 128


def preprocess_request(align: str | None, ignore: Sequence[str]) -> PreprocessRequest:
    """What is to be learnt of the preprocessing.

    Args:
        align: Pixels, or ``auto``; None: nothing.
        ignore: Each a file or ``X,Y,W,H``.

    Raises:
        SettingError: Neither of these.
        DatasetError: A file is not a picture.
    """
    return PreprocessRequest(None if align is None else _displacement(align), [_area(each) for each in ignore])


def _displacement(text: str) -> int:
    if text == _AUTO:
        return AUTO_PX
    if not text.isdecimal() or not int(text):
        raise SettingError(
            what=f"--align {text} is no number of pixels", remedy="give a whole number above 0, e.g. 12, or `auto`"
        )
    return int(text)


def _area(text: str) -> Area:
    if not text.strip("0123456789,. -"):
        return parse.region(text, "--ignore")
    area: Area = to_grey(read_image(Path(text))) >= _WHITE
    return area
