"""The image of a part: about its own middle, padded, and turned on request."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from agent.belt.passing_part import PassingPart, Problem
from agent.camera import Frame


def part(middle: tuple[float, float], *, angle_deg: float = 0.0, is_turned: bool = False) -> PassingPart:
    image = np.zeros((100, 140, 3), np.uint8)
    box = cv2.boxPoints((middle, (40, 10), angle_deg))
    cv2.fillPoly(image, [np.round(box).astype(np.int32)], (200, 200, 200))
    return PassingPart(
        Frame(0, image, 0, 0), middle, angle_deg % 180, (40.0, 10.0), 0.0, Problem.NONE, (31, 51), is_turned
    )


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, 135.0])
def test_a_turned_part_stands_upright_in_the_middle(angle_deg: float) -> None:
    image = part((70.0, 50.0), angle_deg=angle_deg, is_turned=True).image()
    assert image.shape == (51, 31, 3)
    rows, columns = np.nonzero(image[..., 0] > 100)
    assert rows.mean() == pytest.approx(25, abs=1)
    assert columns.mean() == pytest.approx(15, abs=1)
    assert np.ptp(rows) == pytest.approx(40, abs=2)
    assert np.ptp(columns) == pytest.approx(10, abs=2)


def test_without_turning_the_pixels_are_the_frame_s_own() -> None:
    shown = part((70.0, 50.0))
    assert np.array_equal(shown.image(), shown.frame.image[25:76, 55:86])


def test_outside_of_the_frame_its_edge_is_continued() -> None:
    shown = part((3.0, 50.0))
    image = shown.image()
    assert image.shape == (51, 31, 3)
    assert np.array_equal(image[:, :12], np.repeat(image[:, 12:13], 12, axis=1))
    assert np.array_equal(image[:, 12:], shown.frame.image[25:76, :19])


def test_without_a_size_the_image_is_as_large_as_the_part() -> None:
    lying = part((70.0, 50.0), angle_deg=90.0)
    own = PassingPart(lying.frame, lying.middle, 90.0, lying.size_px, 0.0, Problem.NONE)
    assert own.image().shape == (40, 10, 3)
