"""Which good images are held out together: those of one fold, and with them all images of the same part."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from calibration.detectors.contract import Folds
from calibration.detectors.cross_validation import make_folds
from calibration.errors import DatasetError, SettingError
from calibration.statistics.threshold import refuse_unsupported_rate
from calibration.workstation.fit.near_copies import Alike, near_copies
from calibration.workstation.settings import MINIMUM_IMAGES, least_images, refuse_too_few

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calibration.workstation.dataset import Images
    from calibration.workstation.fit.extraction import TrainingData
    from calibration.workstation.settings import Settings

_NAMED = 3


def held_out_folds(data: TrainingData, images: Images, settings: Settings, alike: Alike) -> Folds:
    """The folds of the usable images, some of which may be ``alike``.

    Raises:
        DatasetError: Too few images or parts, or the part of an image is not known.
        SettingError: The false-reject rate is too low for this few of them.
        DegenerateFeaturesError: All images are alike.
    """
    count, rate = len(data.names), settings.false_reject_rate
    refuse_too_few(count, images, max(2, least_images(settings.detector)))
    data.features.refuse_copies()
    if count < MINIMUM_IMAGES:
        return Folds([[index] for index in range(count)])
    refuse_unsupported_rate(rate, count)
    parts = None if alike.parts is None else list(map(str, alike.parts))
    if settings.part_of is not None:
        parts = parts_shown(data.names, settings.part_of, MINIMUM_IMAGES)
    elif parts is not None and len(set(parts)) < MINIMUM_IMAGES:
        raise _too_few_parts(count, len(set(parts)), [data.names[copy] for copy, _ in alike.copies])
    if parts is None or len(set(parts)) == count:
        return make_folds(count, sequential=images.sequential or alike.in_sequence)
    refuse_unsupported_rate(rate, len(set(parts)))
    return make_folds(count, sequential=images.sequential, parts=parts)


def alike_images(data: TrainingData, images: Images, settings: Settings) -> Alike:
    """Images that look like copies of others, unless it is known which show the same part, or they are a video."""
    if settings.part_of is not None or images.sequential or len(data.names) < MINIMUM_IMAGES:
        return Alike()
    return near_copies(data.fingerprints)


def same_part_by(text: str) -> Callable[[str], str | None] | None:
    """``Settings.part_of`` of ``auto``, ``none`` or a regular expression; see `part_by`."""
    if text == "auto":
        return None
    return each_alone if text == "none" else part_by(text)


def each_alone(name: str) -> str:
    """For ``Settings.part_of``: each image shows another part, however alike they look."""
    return name


def _too_few_parts(count: int, different: int, copies: list[str]) -> DatasetError:
    named = f"{', '.join(copies[:_NAMED])}{', ...' if len(copies) > _NAMED else ''}"
    return DatasetError(
        what=f"{count} images show only about {different} different parts: {len(copies)} look like copies of others "
        f"({named})",
        remedy=f"give images of at least {MINIMUM_IMAGES} different parts, better of a hundred; if these are different "
        "parts that look alike, say so: --same-part none",
    )


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
