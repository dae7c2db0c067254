from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.inspection.defect_regions import defect_regions
from agent.messages.records import DefectRegion
from calibration.imaging.preprocess import Region

AREA = Region(x=100, y=50, width=80, height=40)
EVERYWHERE = Region(x=0, y=0, width=2000, height=2000)
FRAME = Region(x=0, y=0, width=200, height=100)


def blank(rows: int = 4, columns: int = 8) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.zeros((rows, columns), np.float32)


def test_a_cell_above_the_threshold_is_a_rectangle_in_frame_pixels() -> None:
    score_map = blank()
    score_map[1, 2] = 5
    assert defect_regions(score_map, 4.0, AREA, FRAME) == (DefectRegion(x=120, y=60, width=10, height=10, score=5.0),)


def test_a_map_at_the_threshold_has_no_region() -> None:
    assert defect_regions(np.full((4, 8), 4, np.float32), 4.0, AREA, FRAME) == ()


def test_cells_that_touch_by_a_corner_are_one_region_with_the_highest_score() -> None:
    score_map = blank()
    score_map[0, 0], score_map[1, 1] = 5, 7
    assert defect_regions(score_map, 4.0, AREA, FRAME) == (DefectRegion(x=100, y=50, width=20, height=20, score=7.0),)


def test_the_worst_region_comes_first() -> None:
    score_map = blank()
    score_map[0, 0], score_map[0, 3], score_map[3, 7] = 5, 9, 7
    assert [region.score for region in defect_regions(score_map, 4.0, AREA, FRAME)] == [9, 7, 5]


def test_of_many_regions_the_eight_worst_remain() -> None:
    score_map = blank(2, 40)
    score_map[0, ::2] = np.arange(1, 21)
    scores = [region.score for region in defect_regions(score_map, 0.5, AREA, FRAME)]
    assert scores == [20, 19, 18, 17, 16, 15, 14, 13]


def test_a_cell_that_is_no_number_is_no_region() -> None:
    score_map = blank()
    score_map[2, 2] = math.nan
    assert defect_regions(score_map, 4.0, AREA, FRAME) == ()


def test_a_score_just_above_the_threshold_has_a_place_though_single_precision_cannot_tell_them_apart() -> None:
    score = float(np.float32(386.7))
    threshold = math.nextafter(score, 0)
    assert np.float32(threshold) == np.float32(score)
    assert len(defect_regions(np.full((1, 1), score, np.float32), threshold, AREA, FRAME)) == 1


@given(
    arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 1000, width=32)),
    st.floats(0.1, 999),
    st.builds(Region, st.integers(0, 500), st.integers(0, 500), st.integers(12, 700), st.integers(12, 700)),
)
def test_regions_lie_inside_the_area_and_the_worst_cell_is_in_the_first(
    score_map: np.ndarray[tuple[int, int], np.dtype[np.float32]], threshold: float, area: Region
) -> None:
    regions = defect_regions(score_map, threshold, area, EVERYWHERE)
    worst = float(score_map.max())
    assert bool(regions) == (worst > threshold)
    for region in regions:
        assert region.width > 0
        assert region.height > 0
        assert area.x <= region.x
        assert region.x + region.width <= area.x + area.width
        assert area.y <= region.y
        assert region.y + region.height <= area.y + area.height
        assert threshold < region.score <= worst
    if regions:
        assert regions[0].score == worst


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (14, 14), (5, 9)])
def test_a_map_that_is_all_defect_is_the_whole_area(rows: int, columns: int) -> None:
    (region,) = defect_regions(np.ones((rows, columns), np.float32), 0.5, AREA, FRAME)
    assert (region.x, region.y, region.width, region.height) == (100, 50, 80, 40)
