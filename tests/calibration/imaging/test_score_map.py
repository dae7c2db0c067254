"""The score map covers the region of interest, with every cell in its location."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.imaging.score_map import cover_region, map_threshold
from calibration.statistics.smoothing import Smoothing

sides = st.integers(1, 7)


@given(sides, sides, st.integers(0, 5), st.integers(0, 5))
def test_every_cell_keeps_its_centre_and_the_border_is_repeated_outward(
    height: int, width: int, more_rows: int, more_columns: int
) -> None:
    """In half cells; reduction removes equally much from both sides."""
    score_map = np.random.default_rng(0).random((height, width)).astype(np.float32)
    covered = cover_region(score_map, (height + more_rows, width + more_columns))
    assert covered.shape == (2 * (height + more_rows), 2 * (width + more_columns))
    assert covered.dtype == np.float32
    for row, column in np.ndindex(*covered.shape):
        nearest_row = min(max((row - more_rows) // 2, 0), height - 1)
        nearest_column = min(max((column - more_columns) // 2, 0), width - 1)
        assert covered[row, column] == score_map[nearest_row, nearest_column]


def test_an_averaging_region_of_two_shifts_the_map_by_half_a_cell() -> None:
    covered = cover_region(np.array([[1.0, 2.0]], np.float32), (1, 3))
    np.testing.assert_array_equal(covered, [[1, 1, 1, 2, 2, 2]] * 2)


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (14, 9)])
def test_a_single_cell_covers_the_whole_region(grid: tuple[int, int]) -> None:
    np.testing.assert_array_equal(
        cover_region(np.array([[7.5]], np.float32), grid), np.full((2 * grid[0], 2 * grid[1]), 7.5)
    )


def test_a_map_as_large_as_the_grid_is_not_moved() -> None:
    score_map = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(cover_region(score_map, (2, 3)), np.kron(score_map, np.ones((2, 2))))


def test_a_map_larger_than_the_grid_already_covers_the_region() -> None:
    score_map = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(cover_region(score_map, (2, 2)), np.kron(score_map, np.ones((2, 2))))


def test_a_smoothed_map_covers_the_region_where_its_peak_is() -> None:
    """Pixels of the network input, whatever the grid: the map already reaches from edge to edge."""
    slope = np.zeros((1, 14, 14), np.float32)
    slope[0, 2:5, 9:12] = 1.0
    slope[0, 3, 10] = 2.0
    for size in ((224, 224), (224, 112), (96, 160)):
        smoothed = Smoothing(size, 4)(slope)[0]
        covered = cover_region(smoothed, (14, 14))
        row, column = np.unravel_index(covered.argmax(), covered.shape)
        place = (row + 0.5) / covered.shape[0], (column + 0.5) / covered.shape[1]
        assert place == pytest.approx((3.5 / 14, 10.5 / 14), abs=1 / 96)


def test_what_scores_above_the_threshold_has_a_place_in_a_smoothed_map() -> None:
    score_map = np.array([[1.0, 4.0], [2.0, 3.0]], np.float32)
    assert map_threshold(score_map, 5.0, 4.5) == pytest.approx(3.6)
    assert map_threshold(score_map, 5.0, 6.0) > 4.0
    assert map_threshold(score_map, 3.0, 2.5) == 2.5
    assert map_threshold(np.zeros((2, 2), np.float32), 5.0, 4.5) == 4.5
    assert map_threshold(score_map, np.inf, 4.5) == 4.5
