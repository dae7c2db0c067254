from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.archive.caption import captioned
from calibration.errors import DatasetError
from calibration.imaging.heatmap import Array, heat_layer, overlay
from calibration.imaging.preprocess import Image, Region

REGION = Region(x=40, y=20, width=112, height=112)


def grey_frame(rows: int = 160, columns: int = 200) -> Image:
    return np.full((rows, columns, 3), 128, np.uint8)


def flat_map(value: float = 10.0, size: int = 14) -> Array:
    return np.full((size, size), value, np.float32)


def is_red(picture: Image) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Pixels in the red of the contour, which the colour map does not contain."""
    blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
    return np.asarray((red > 200) & (green < 70) & (blue > 30) & (blue < 90))


def test_a_good_frame_is_not_coloured() -> None:
    frame = grey_frame()
    assert np.array_equal(overlay(frame, None, flat_map(), 100.0), frame)


def test_the_frame_itself_is_not_changed() -> None:
    frame = grey_frame()
    overlay(frame, REGION, flat_map(500.0), 100.0)
    assert np.array_equal(frame, grey_frame())


def test_heat_appears_only_where_the_score_is_high() -> None:
    score_map = flat_map()
    score_map[2:4, 9:11] = 400.0
    changed = (overlay(grey_frame(), REGION, score_map, 100.0) != 128).any(axis=2)
    changed[REGION.y, :] = changed[REGION.y + 111, :] = False  # The frame of the region.
    changed[:, REGION.x] = changed[:, REGION.x + 111] = False
    rows, columns = np.nonzero(changed)
    # Cells of 8 pixels: the middle of the four is at row 3, column 10 of the map.
    assert rows.mean() == pytest.approx(REGION.y + 3 * 8, abs=2)
    assert columns.mean() == pytest.approx(REGION.x + 10 * 8, abs=2)
    assert np.ptp(rows) < 40
    assert np.ptp(columns) < 40


def test_the_layer_has_the_heat_of_the_overlay_and_nothing_else() -> None:
    score_map = flat_map()
    score_map[2:4, 9:11] = 400.0
    layer = heat_layer(score_map, 100.0, 112, 112)
    assert layer.shape == (112, 112, 4)
    assert layer[24, 80, 3] == 255
    assert layer[60:, :, :].max() == 0
    # Over a black frame and at the opacity of the overlay it is the overlay.
    black = overlay(np.zeros((112, 112, 3), np.uint8), None, score_map, 1e5 / 250)
    shown = heat_layer(score_map, 1e5 / 250, 112, 112)
    inside = shown[..., :3] * (0.45 * shown[..., 3:] / 255.0)
    assert np.abs(inside - black).max() <= 2


def test_nothing_but_the_region_is_coloured() -> None:
    picture = overlay(grey_frame(), REGION, flat_map(500.0), 100.0)
    picture[REGION.y : REGION.y + REGION.height, REGION.x : REGION.x + REGION.width] = 128
    assert np.array_equal(picture, grey_frame())


@pytest.mark.slow
@given(
    st.integers(1, 28),
    st.floats(1.001, 50.0),
    st.integers(0, 27),
    st.integers(0, 27),
    st.sampled_from([0.0, 0.5, 0.99]),
)
@example(18, 1.0625, 17, 17, 0.5)
@example(28, 1.2, 27, 4, 0.5)
def test_every_cell_above_the_threshold_gets_a_contour(
    size: int, ratio: float, row: int, column: int, background: float
) -> None:
    score_map = flat_map(100.0 * background, size)
    score_map[row % size, column % size] = 100.0 * ratio
    picture = overlay(grey_frame(), REGION, score_map, 100.0)
    assert is_red(picture).any()


@given(st.floats(0.0, 1.0), st.integers(1, 28))
def test_no_contour_is_drawn_if_no_cell_is_above_the_threshold(ratio: float, size: int) -> None:
    score_map = flat_map(0.0, size)
    score_map[size // 2, size // 2] = 100.0 * ratio
    assert not is_red(overlay(grey_frame(), None, score_map, 100.0)).any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -5.0])
def test_cells_without_a_finite_score_stay_bare(value: float) -> None:
    assert np.array_equal(overlay(grey_frame(), None, flat_map(value), 100.0), grey_frame())


def test_a_region_outside_the_frame_is_refused() -> None:
    with pytest.raises(DatasetError):
        overlay(grey_frame(20, 40), REGION, flat_map(), 100.0)


@pytest.mark.parametrize(("right", "down"), [(-50, 0), (0, -30), (100, 80), (-50, 80)])
def test_a_region_beyond_the_border_shows_its_heat_at_the_same_pixels(right: int, down: int) -> None:
    """A frame with a margin shows the whole region; without the margin the other pixels are the same."""
    score_map = np.random.default_rng(1).uniform(0, 300, (6, 6)).astype(np.float32)
    region, margin = REGION.moved(right, down), 200
    wide = overlay(grey_frame(160 + 2 * margin, 200 + 2 * margin), region.moved(margin, margin), score_map, 100.0)
    seen = overlay(grey_frame(), region, score_map, 100.0)
    inner = np.s_[8:-8, 8:-8]  # outlines are drawn along the frame's border, too
    assert np.abs(seen.astype(int) - wide[margin:-margin, margin:-margin])[inner].mean() < 1


@pytest.mark.parametrize(
    ("score", "colour"), [(50.0, (80, 160, 40)), (150.0, (48, 32, 224)), (math.nan, (120, 120, 120))]
)
def test_the_bar_shows_the_verdict_by_its_colour(score: float, colour: tuple[int, int, int]) -> None:
    bar = captioned(grey_frame(480, 640), score, 100.0, 1_790_000_000_123)[480:]
    assert tuple(bar[1, 1]) == colour


@pytest.mark.parametrize("shape", [(480, 640), (1080, 1920), (64, 64), (1, 1)])
def test_the_bar_is_added_below_and_covers_nothing(shape: tuple[int, int]) -> None:
    picture = captioned(grey_frame(*shape), 150.0, 100.0, 0)
    assert picture.shape[1:] == (shape[1], 3)
    assert picture.shape[0] >= shape[0] + 20
    assert (picture[: shape[0]] == 128).all()


def test_at_640_by_480_score_threshold_and_time_all_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(cv2, "putText", lambda _, text, *__: written.append(text))
    captioned(grey_frame(480, 640), 231.54321, 100.0, 1_790_000_000_123)
    assert written == ["NOT OK", "score 231.5", "threshold 100", "2026-09-21 14:13:20Z"]
