"""Texts of options as the numbers that they stand for."""

from __future__ import annotations

import math

from calibration.errors import SettingError
from calibration.imaging.preprocess import Region


def size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` or one side, in pixels."""
    sides = numbers("--size", text.lower().replace("x", ","), "HEIGHTxWIDTH or one number, e.g. 224x224")
    if len(sides) not in {1, 2} or any(side < 1 or side % 1 for side in sides):
        raise SettingError(what=f"--size {text} is not a size", remedy="give HEIGHTxWIDTH in pixels, e.g. 224x224")
    return int(sides[0]), int(sides[-1])


def region(text: str, option: str = "--roi") -> Region:
    """``X,Y,WIDTH,HEIGHT`` in frame pixels."""
    sides = numbers(option, text, "X,Y,WIDTH,HEIGHT in frame pixels")
    if len(sides) != 4 or any(side % 1 for side in sides):  # noqa: PLR2004
        raise SettingError(what=f"{option} {text} is not a region", remedy="give X,Y,WIDTH,HEIGHT in frame pixels")
    return Region(*map(int, sides))


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


def numbers(option: str, text: str, wanted: str) -> tuple[float, ...]:
    """Finite numbers, with commas between them.

    Raises:
        SettingError: Anything else; ``wanted`` is the remedy.
    """
    try:
        given = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(what=f"{option} {text!r} is not understood", remedy=f"give {wanted}") from error
    if not all(map(math.isfinite, given)):
        raise SettingError(what=f"{option} {text} is not finite", remedy=f"give {wanted}")
    return given
