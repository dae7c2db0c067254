"""Figures that help to aim a camera: focus relative to the best seen, and what is too bright or too dark."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from agent.setup.focus import Focus
from tests.support.washers import washer


def blurred(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return cv2.GaussianBlur(washer(number), (0, 0), 4).astype(np.uint8)


def test_the_first_picture_is_the_best_so_far() -> None:
    figures = Focus().figures(washer(1))
    assert figures["focus"] == 1.0
    assert figures["mean"] == pytest.approx(washer(1).mean(), abs=5)
    assert figures["advice"] == []


def test_a_picture_that_stays_blurred_is_said_to_be_less_sharp_until_a_sharp_one_comes() -> None:
    focus = Focus()
    focus.figures(washer(1))
    seen = [focus.figures(blurred(number)) for number in range(12)]
    assert seen[0]["focus"] == 1.0  # one blurred frame is a part that passes
    assert seen[-1]["focus"] < 0.5
    assert "less sharp than before" in seen[-1]["advice"][0]
    assert focus.figures(washer(2))["advice"] == []


@pytest.mark.parametrize(
    ("grey", "says"), [(255, "white areas without detail: less exposure"), (0, "black areas without detail: more exp")]
)
def test_areas_without_detail_are_named_with_what_to_do(grey: int, says: str) -> None:
    image = washer(1).copy()
    image[:16] = grey
    (advice,) = Focus().figures(image)["advice"]
    assert advice.startswith(says)


def test_a_black_picture_has_figures() -> None:
    focus = Focus()
    for _ in range(2):
        figures = focus.figures(np.zeros((8, 8, 3), np.uint8))
        assert figures["black"] == 1.0
        assert 0 <= figures["focus"] <= 1
