"""The values that the texts of options stand for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.errors import SettingError
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Region
from calibration.imaging.region import to_grey
from calibration.workstation.settings import AUTO_PX

if TYPE_CHECKING:
    from calibration.workstation.settings import Area

AUTO = "auto"
_WHITE = 128


def size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` or one side, in pixels."""
    sides = numbers("--size", text.lower().replace("x", ","), "HEIGHTxWIDTH or one number, e.g. 224x224")
    if len(sides) not in {1, 2} or any(side < 1 or side % 1 for side in sides):
        raise SettingError(what=f"--size {text} is not a size", remedy="give HEIGHTxWIDTH in pixels, e.g. 224x224")
    return int(sides[0]), int(sides[-1])


def displacement(text: str) -> int:
    """Value of ``--align``: pixels, or ``auto``."""
    if text == AUTO:
        return AUTO_PX
    if not text.isdecimal() or not int(text):
        raise SettingError(
            what=f"--align {text} is not a number of pixels", remedy="give a whole number above 0, e.g. 12, or `auto`"
        )
    return int(text)


def ignored_area(text: str) -> Area:
    """Value of ``--ignore``: a mask file, white where the frame is ignored, or ``X,Y,WIDTH,HEIGHT``.

    Raises:
        SettingError: Not a rectangle.
        DatasetError: The file is not an image.
    """
    if not text.strip("0123456789,. -"):
        return Region.from_text(text, "--ignore")
    area: Area = to_grey(read_image(Path(text))) >= _WHITE
    return area


def colours(option: str, text: str) -> tuple[float, float, float]:
    """``R,G,B``."""
    given = numbers(option, text, "three numbers: R,G,B")
    if len(given) != 3:  # noqa: PLR2004
        raise SettingError(what=f"{option} {text} has {len(given)} numbers", remedy="give three: R,G,B")
    return given[0], given[1], given[2]


def number(option: str, text: str) -> float:
    """One number."""
    given = numbers(option, text, "a number")
    if len(given) != 1:
        raise SettingError(what=f"{option} {text} is {len(given)} numbers", remedy="give one, with a decimal point")
    return given[0]


def numbers(option: str, text: str, expected: str) -> tuple[float, ...]:
    """Finite numbers, separated by commas.

    Raises:
        SettingError: Anything else; ``expected`` is the remedy.
    """
    try:
        given = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(what=f"{option} {text!r} is not understood", remedy=f"give {expected}") from error
    if not all(map(math.isfinite, given)):
        raise SettingError(what=f"{option} {text} is not finite", remedy=f"give {expected}")
    return given
