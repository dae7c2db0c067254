"""Images of one part are found from the images; independent good parts are not taken for copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.workstation.fit import near_copies as module
from calibration.workstation.fit.near_copies import fingerprint, near_copies
from tests.support.photographed import photographed
from tests.support.plates import displaced
from tests.support.washers import washer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calibration.imaging.preprocess import Image
    from calibration.workstation.fit.near_copies import Alike

PARTS, TIMES = 20, 3


def alike(pictures: Sequence[Image]) -> Alike:
    return near_copies([fingerprint(picture) for picture in pictures])


def labels(found: Alike) -> list[int] | None:
    return None if found.parts is None else found.parts.tolist()


def repeated(part_of: Sequence[int]) -> list[Image]:
    """The pictures of parts in a given order."""
    pictures = {part: photographed(part, part_of.count(part)) for part in set(part_of)}
    return [pictures[part].pop() for part in part_of]


def print_at(right: float, down: float, noise: np.random.Generator) -> Image:
    """The same fine print on every part, displaced by fractions of a pixel."""
    print_ = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 60, (96, 96)), (0, 0), 1.5)
    moved = cv2.warpAffine(print_, np.array([[1, 0, right - 16], [0, 1, down - 16]], np.float32), (64, 64))
    grey = np.clip(120 + moved + noise.normal(0, 2, moved.shape), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def test_images_of_one_part_are_found_in_any_order() -> None:
    part_of = np.random.default_rng(0).permutation(np.repeat(np.arange(PARTS), TIMES)).tolist()
    found = alike(repeated(part_of))
    order = list(dict.fromkeys(part_of))
    assert labels(found) == [order.index(part) for part in part_of]
    assert not found.in_sequence
    assert [before for _, before in found.copies] == [
        part_of.index(part) for index, part in enumerate(part_of) if part in part_of[:index]
    ]


def _washers() -> list[Image]:
    return [washer(number) for number in range(60)]


def _plates() -> list[Image]:
    return displaced(60, 3)


def _printed() -> list[Image]:
    random = np.random.default_rng(1)
    return [print_at(random.normal(0, 1), random.normal(0, 1), random) for _ in range(60)]


def _grained() -> list[Image]:
    return [photographed(part, 1)[0] for part in range(60)]


def _a_lamp_that_ages() -> list[Image]:
    pictures = [photographed(0, 1)[0].astype(np.float32)] * 60
    shade = np.linspace(-1, 1, 64)[None, :, None]
    noise = np.random.default_rng(2)
    return [
        np.clip(picture * (1 + 0.3 * shade * number / 60) + noise.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
        for number, picture in enumerate(pictures)
    ]


def _three_kinds() -> list[Image]:
    return [picture for kind in range(3) for picture in photographed(kind, 20)]


@pytest.mark.parametrize("draw", [_washers, _plates, _printed, _grained, _a_lamp_that_ages, _three_kinds])
def test_parts_that_merely_resemble_each_other_are_no_copies(draw: Callable[[], list[Image]]) -> None:
    pictures = draw()
    order = np.random.default_rng(3).permutation(len(pictures))
    found = alike([pictures[index] for index in order])
    assert (labels(found), found.in_sequence) == (None, False)


@pytest.mark.parametrize("count", [10, 30, 40])
def test_copies_are_rarely_seen_among_few_images_of_a_print_that_moves(count: int) -> None:
    random = np.random.default_rng(4)
    mistaken = 0
    for _ in range(20):
        found = alike([print_at(random.normal(0, 5), random.normal(0, 5), random) for _ in range(count)])
        mistaken += found.parts is not None
    assert mistaken <= 1


def test_a_few_copies_change_nothing() -> None:
    assert labels(alike(repeated([*range(40), 0, 1, 2]))) is None


def test_frames_of_a_slow_camera_drive_are_a_sequence() -> None:
    noise = np.random.default_rng(5)
    drive = [print_at(number / 2, number / 5, noise) for number in range(50)]
    assert alike(drive).in_sequence
    assert not alike([drive[index] for index in noise.permutation(50)]).in_sequence


def test_identical_pictures_are_found_among_parts_that_vary_smoothly() -> None:
    printed = _printed()
    assert labels(alike([*printed, *printed])) is not None
    assert alike([*printed, *printed]).copies == [(60 + number, number) for number in range(60)]


def test_of_many_images_those_near_in_order_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPARED", 3 * PARTS // 2)
    part_of = [part for start in range(0, PARTS, PARTS // 2) for part in [*range(start, start + PARTS // 2)] * TIMES]
    assert labels(alike(repeated(part_of))) == part_of


def test_nothing_is_found_where_nothing_differs() -> None:
    assert labels(alike([washer(0)] * 3)) is None
