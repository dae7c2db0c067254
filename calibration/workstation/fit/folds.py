"""Which good images are held out together: those of one fold, and with them all images of the same part."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from calibration.detectors.cross_validation import make_folds
from calibration.errors import DatasetError, SettingError
from calibration.statistics.threshold import refuse_unsupported_rate
from calibration.workstation.settings import MINIMUM_IMAGES, refuse_too_few

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calibration.detectors.contract import Folds
    from calibration.workstation.dataset import Images
    from calibration.workstation.fit.extraction import TrainingData
    from calibration.workstation.settings import Settings

_NAMED = 3


def held_out_folds(data: TrainingData, images: Images, settings: Settings) -> Folds:
    """The folds of the usable images.

    Raises:
        DatasetError: Too few images or parts, or the part of an image is not known.
        SettingError: The false-reject rate is too low for this few of them.
        DegenerateFeaturesError: All images are alike.
    """
    count, rate = len(data.names), settings.false_reject_rate
    refuse_too_few(count, images)
    refuse_unsupported_rate(rate, count)
    data.features.refuse_copies()
    if settings.part_of is None:
        return make_folds(count, sequential=images.sequential)
    parts = parts_shown(data.names, settings.part_of, MINIMUM_IMAGES)
    refuse_unsupported_rate(rate, len(set(parts)))
    return make_folds(count, sequential=images.sequential, parts=parts)


def part_by(pattern: str) -> Callable[[str], str | None]:
    """Function from the name of an image to its part: what a regular expression finds, its first group if it has one.

    It returns None for a name in which the expression finds nothing.

    Raises:
        SettingError: It is not a regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingError(
            what=f"--same-part {pattern!r} is not a regular expression: {error}",
            remedy=r"give what the names of all images of a part share, e.g. 'part(\d+)'",
        ) from error

    def part_of(name: str) -> str | None:
        found = compiled.search(name)
        return None if found is None else found[1 if compiled.groups else 0]

    return part_of


def parts_shown(names: Sequence[str], part_of: Callable[[str], str | None], least: int) -> list[str]:
    """The part that each image shows.

    Raises:
        DatasetError: An image has none, or there are fewer than ``least`` different parts.
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
