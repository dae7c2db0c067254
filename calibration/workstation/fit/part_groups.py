"""Which good images show the same part: these vouch for each other, so that they are left out together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from calibration.errors import DatasetError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAMED = 3


def part_by(pattern: str) -> Callable[[str], str | None]:
    """From the name of an image to its part: what a regular expression finds there, its first group if it has one.

    Returns:
        None for a name in which it finds nothing.

    Raises:
        SettingError: It is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingError(
            what=f"--same-part {pattern!r} is no regular expression: {error}",
            remedy=r"give what the names of all pictures of a part share, e.g. 'part(\d+)'",
        ) from error

    def part_of(name: str) -> str | None:
        found = compiled.search(name)
        return None if found is None else found[1 if compiled.groups else 0]

    return part_of


def parts_shown(names: Sequence[str], part_of: Callable[[str], str | None], least: int) -> list[str]:
    """The part that each image shows.

    Args:
        names: Of the images.
        part_of: From name to part.
        least: So many parts there must be.

    Raises:
        DatasetError: An image has none, or they are too few.
    """
    parts = {name: part_of(name) for name in names}
    without = [name for name, part in parts.items() if part is None]
    if without:
        raise DatasetError(
            what=f"--same-part finds nothing in {len(without)} of {len(names)} names: {', '.join(without[:_NAMED])}",
            remedy="give a regular expression that finds the part in each name",
        )
    different = len(set(parts.values()))
    if different < least:
        raise DatasetError(
            what=f"only {different} different parts in {len(names)} images",
            remedy=f"give at least {least}; a hundred or more make a threshold that keeps its promise",
        )
    return [str(parts[name]) for name in names]
