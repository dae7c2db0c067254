"""Parts that look like the empty place, and pictures of it among the good ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from agent.frame_checks.empty_place import EmptyPlace
from calibration.camera_checks.reference import ReferenceStatistics
from calibration.imaging.preprocess import Image, Preprocess

SIDE = 96
SCENE = Preprocess(SIDE, SIDE)
PLACE = 45
GREYS = np.linspace(60, 220, 40)


def picture(grey: float | None = None, number: int = 0) -> Image:
    """A tile of this grey level on the place; the empty place without one."""
    scene = np.full((SIDE, SIDE, 3), float(PLACE))
    if grey is not None:
        cv2.rectangle(scene, (4, 4), (SIDE - 5, SIDE - 5), (grey, grey, grey), -1)
    noise = np.random.default_rng(number).normal(0, 2, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def place_known_with(*good: Image, is_older: bool = False) -> EmptyPlace:
    statistics = ReferenceStatistics()
    for each in good:
        statistics.update(SCENE(each), each, each.shape[:2])
    reference = statistics.arrays(sequential=False)
    if is_older:
        del reference["small_frames"]
        reference["golden_frames"] = np.stack([good[0], good[len(good) // 2], good[-1], good[0]])
    return EmptyPlace(picture(), SCENE, reference)


TILES = [picture(grey, number) for number, grey in enumerate(GREYS)]


@pytest.mark.parametrize("is_older", [False, True])
def test_dark_parts_of_a_mixed_batch_are_not_taken_for_the_empty_place(*, is_older: bool) -> None:
    place = place_known_with(*TILES, is_older=is_older)
    assert place.distance(TILES[0]) < 0.2, "less than half as far as the usual part"
    assert not any(place(tile) for tile in TILES)
    assert not place(picture(58, 99)), "one a little darker than all known"
    empties = [np.clip(picture(None, number) * light, 0, 255) for number, light in enumerate((0.8, 1.0, 1.25))]
    assert all(place(empty.astype(np.uint8)) for empty in empties)
    assert place.doubt is None
    assert place.summary.startswith(f"{3 if is_older else 40} good images are at 0.")


def test_a_picture_of_the_empty_place_among_the_good_ones_is_reported_and_changes_no_limit() -> None:
    place = place_known_with(*TILES, picture(None, 77))
    assert place.limit == pytest.approx(place_known_with(*TILES).limit, rel=0.05)
    assert place(picture(None, 5))
    assert place.doubt is not None
    assert place.doubt.startswith(
        "1 of the 41 good images differ from the empty place by less than 4 grey levels: strays "
    )


def test_parts_that_hardly_differ_from_the_empty_place_are_reported_with_the_difference() -> None:
    faint = [picture(None, number) for number in range(5)]
    for each in faint:
        each[: SIDE // 2] += 6
    place = place_known_with(*faint, *TILES)
    assert place.doubt is not None
    assert place.doubt.startswith("5 of the 45 good images differ from the empty place by less than 4 grey levels: ")
    assert not any(place(each) for each in faint)
