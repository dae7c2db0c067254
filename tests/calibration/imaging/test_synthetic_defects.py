"""Synthetic defects: where they are, how large, how strong, and that they are always the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.imaging.synthetic_defects import (
    DIFFERENT,
    KINDS,
    SHARES,
    affordable_defects,
    kind_and_share,
    picture_of,
    planned_defects,
    side_of,
    with_defect,
)
from tests.support.washers import washer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.region import Image

SIDE = 96


def grey(pixels: NDArray[np.floating]) -> Image:
    return np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def surface(spread: float, *, rows: int = SIDE, columns: int = SIDE) -> Image:
    return grey(np.random.default_rng(7).normal(128, spread, (rows, columns)))


def changed(before: Image, after: Image) -> NDArray[np.bool_]:
    return np.asarray((before != after).any(axis=2))


@pytest.mark.parametrize("number", range(DIFFERENT))
def test_a_defect_changes_a_square_of_its_size_at_most_in_a_copy(number: int) -> None:
    whole = washer(1, side=SIDE)
    before = whole.copy()
    side = side_of(SIDE, kind_and_share(number)[1])
    for seed in range(12):
        area = changed(whole, with_defect(whole, number, np.random.default_rng(seed), other=washer(2, side=SIDE)))
        rows, columns = np.nonzero(area)
        assert len(rows) > 0
        assert max(np.ptp(rows), np.ptp(columns)) < side
    assert np.array_equal(whole, before)


def test_kinds_and_sizes_come_up_alike_often() -> None:
    drawn = [kind_and_share(number) for number in range(3 * DIFFERENT)]
    assert {drawn.count((kind, share)) for kind in KINDS for share in SHARES} == {3}


@pytest.mark.parametrize(("good", "defects", "images"), [(10, 40, 10), (100, 40, 20), (400, 80, 24), (5000, 120, 24)])
def test_the_plan_has_each_number_once_and_spreads_them_over_the_images(good: int, defects: int, images: int) -> None:
    assert affordable_defects(good) == defects
    planned = planned_defects(good, defects)
    assert sorted(number for numbers in planned for number in numbers) == list(range(defects))
    assert len(planned) == images
    assert {len(numbers) for numbers in planned} <= {defects // images, -(-defects // images)}


@pytest.mark.parametrize("number", range(4))
def test_the_same_numbers_draw_the_same(number: int) -> None:
    one, again = (with_defect(surface(9.0), number + 16, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, with_defect(surface(9.0), number + 16, np.random.default_rng(6)))


@pytest.mark.parametrize("number", range(DIFFERENT))
def test_a_grey_image_gets_a_grey_defect(number: int) -> None:
    damaged = with_defect(surface(30.0), number, np.random.default_rng(number))
    assert np.ptp(damaged.astype(int), axis=2).max() == 0


@pytest.mark.parametrize("number", range(DIFFERENT))
@pytest.mark.parametrize("level", [0, 90, 255], ids=["black", "grey", "white"])
@pytest.mark.parametrize("size", [(3, 3), (5, 64), (41, 17)], ids=str)
def test_something_is_seen_on_an_image_of_one_colour_and_of_any_size(
    size: tuple[int, int], level: int, number: int
) -> None:
    plain = np.full((*size, 3), level, np.uint8)
    for seed in range(4):
        assert changed(plain, with_defect(plain, number, np.random.default_rng(seed))).any()


def test_the_contrast_of_a_crack_is_that_of_the_surface_and_a_few_grey_levels_at_least() -> None:
    def contrast(spread: float) -> float:
        whole = surface(spread)
        drawn = [with_defect(whole, 16, np.random.default_rng(seed)) for seed in range(20)]
        return float(np.median([np.abs(each.astype(int) - whole).max() for each in drawn]))

    assert 6 <= contrast(0.5) <= 25
    assert contrast(15.0) > 2.5 * contrast(0.5)


def test_the_middle_of_a_defect_lies_where_the_part_is_inspected() -> None:
    whole, inspected = surface(12.0), np.zeros((SIDE, SIDE), np.bool_)
    inspected[60:70, 20:30] = True
    for number in range(8):  # the two smallest sizes: 3 pixels
        rows, columns = np.nonzero(
            changed(whole, with_defect(whole, number, np.random.default_rng(number), inspected=inspected))
        )
        assert 58 <= rows.min() <= rows.max() <= 71
        assert 18 <= columns.min() <= columns.max() <= 31


def test_a_picture_shows_the_defect_in_the_middle_where_there_is_room() -> None:
    whole = np.full((400, 300, 3), 50, np.uint8)
    damaged = whole.copy()
    damaged[200:204, 150:154] = 255
    shown = picture_of(whole, damaged)
    rows, columns = np.nonzero(shown[..., 0] > 100)
    assert shown.shape == (96, 96, 3)
    assert abs(rows.mean() - 47.5) <= 2
    assert abs(columns.mean() - 47.5) <= 2
