"""A frame becomes network input without losing what is fine in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.errors import SettingError
from calibration.imaging.preprocess import Preprocess, Region

SIDE = 64
ACROSS = Preprocess(SIDE, SIDE)


def line(rows: int, columns: int, column: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A grey frame with a vertical line of one pixel, 100 grey levels brighter."""
    frame = np.full((rows, columns, 3), 100, np.uint8)
    frame[:, column] = 200
    return frame


@pytest.mark.parametrize("rows", [40, SIDE, 100, 256])
def test_a_line_of_one_pixel_keeps_its_light_wherever_it_is(rows: int) -> None:
    light = [
        float((ACROSS(line(rows, 256, column)).astype(float) - 100).sum(axis=1).mean()) for column in range(8, 248)
    ]
    # A line of 100 levels on one of 4 columns leaves 25 on the pixel that covers it.
    assert min(light) == pytest.approx(25, abs=1.5)
    assert max(light) == pytest.approx(25, abs=1.5)


def test_a_bundle_from_before_resizes_as_it_was_calibrated() -> None:
    before = replace(ACROSS, averages_each_side=False)
    lost = before(line(40, 256, 100)).astype(float) - 100
    assert abs(lost.sum(axis=1).mean() - 25) > 5  # a bilinear sample hits the line, or misses it
    both_shrink = line(256, 256, 100)
    np.testing.assert_array_equal(before(both_shrink), ACROSS(both_shrink))


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (40, 50), (64, 64)])
def test_a_smaller_frame_grows_as_before(rows: int, columns: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)
    np.testing.assert_array_equal(replace(ACROSS, averages_each_side=False)(frame), ACROSS(frame))


@pytest.mark.parametrize("size", [(64, 64), (103, 200), (51, 40)])
def test_a_crop_takes_the_middle_of_a_frame_of_any_size(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    location = replace(ACROSS, crop=0.5).locate(frame)
    region = location.region
    assert (region.height, region.width) == (round(size[0] / 2), round(size[1] / 2))
    assert abs(2 * region.x + region.width - size[1]) <= 1
    assert abs(2 * region.y + region.height - size[0]) <= 1
    np.testing.assert_array_equal(replace(ACROSS, crop=0.5)(frame), replace(ACROSS, region=region)(frame))


def test_a_crop_takes_the_middle_of_the_region() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    cropped = replace(ACROSS, region=Region(10, 20, 40, 60), crop=0.75)
    assert cropped.area(frame) == Region(15, 27, 30, 45)
    assert cropped.region_of_interest(frame).shape == (45, 30, 3)


@pytest.mark.parametrize("crop", [0.0, 1.1])
def test_a_crop_that_is_no_share_is_refused(crop: float) -> None:
    with pytest.raises(SettingError, match="crop"):
        Preprocess(SIDE, SIDE, crop=crop)
