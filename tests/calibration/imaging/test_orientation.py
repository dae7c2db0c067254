from __future__ import annotations

import cv2
import numpy as np
import pytest

from calibration.imaging.orientation import Structure, edge_directions

SIDE = 112


def picture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (SIDE * 2, SIDE * 2)).astype(np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(cv2.normalize(blurred, np.empty_like(blurred), 0, 255, cv2.NORM_MINMAX))


def view(whole: np.ndarray, right: int = 0, down: int = 0) -> np.ndarray:
    """The view of a camera that is displaced by so many pixels."""
    start = SIDE // 2
    return whole[start - down : start - down + SIDE, start - right : start - right + SIDE]


def stripes() -> np.ndarray:
    rows = np.sin(np.arange(SIDE * 2) / 5) * 100 + 120
    return np.repeat(rows[:, None], SIDE * 2, axis=1).astype(np.uint8)


@pytest.mark.parametrize(("right", "down"), [(0, 5), (7, 0), (-12, 9), (20, -20), (-4, -3)])
def test_a_displacement_is_found_to_the_cell(right: int, down: int) -> None:
    whole = picture()
    found = Structure(edge_directions(view(whole))).displacement(edge_directions(view(whole, right, down)))
    assert found.cells == (right, down)
    assert found.elsewhere > 0.5
    assert found.at_zero < 0.2


def test_the_correlation_agrees_with_its_definition() -> None:
    mean, seen = edge_directions(view(picture(1))), edge_directions(view(picture(2), 3, 2))
    found = Structure(mean).displacement(seen)
    assert found.at_zero == pytest.approx(float((mean * seen).sum() / (mean**2).sum()), abs=1e-4)
    right, down = found.cells
    shifted = np.zeros_like(seen)
    rows, columns = slice(max(0, -down), SIDE - max(0, down)), slice(max(0, -right), SIDE - max(0, right))
    shifted[rows, columns] = seen[max(0, down) : SIDE + min(0, down), max(0, right) : SIDE + min(0, right)]
    assert found.elsewhere == pytest.approx(float((mean * shifted).sum() / (mean**2).sum()), abs=1e-4)


def test_light_and_contrast_hardly_matter() -> None:
    whole = picture()
    structure = Structure(edge_directions(view(whole)))
    dim = structure.displacement(edge_directions((view(whole) * 0.4 + 20).astype(np.uint8)))
    assert dim.at_zero > 0.7
    assert dim.elsewhere - dim.at_zero < -0.2


def test_hidden_structure_lowers_the_correlation_equally_at_all_displacements() -> None:
    whole = picture()
    half = view(whole).copy()
    half[:, SIDE // 2 :] = 128
    found = Structure(edge_directions(view(whole))).displacement(edge_directions(half))
    assert found.at_zero == pytest.approx(0.5, abs=0.1)
    assert found.elsewhere - found.at_zero < -0.2


def test_a_plain_image_has_no_recognisable_structure() -> None:
    assert not Structure(edge_directions(np.full((SIDE, SIDE), 90, np.uint8))).is_recognisable
    assert Structure(edge_directions(view(picture()))).is_recognisable


def test_parallel_edges_do_not_reveal_a_displacement_along_them() -> None:
    sideways, upright = Structure(edge_directions(view(stripes()))).smallest_visible_shift(visible=0.5, limit=0.05)
    assert sideways is None
    assert upright is not None
    assert upright <= 5
    assert None not in Structure(edge_directions(view(picture()))).smallest_visible_shift(visible=0.5, limit=0.05)


def test_edge_directions_do_not_depend_on_memory_alignment() -> None:
    seen = np.ascontiguousarray(view(picture()))
    results = set()
    for offset in range(32):
        buffer = np.zeros(seen.size + 32, np.uint8)
        copy = buffer[offset : offset + seen.size].reshape(seen.shape)
        copy[:] = seen
        results.add(edge_directions(copy).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("shape", [(16, 200), (200, 16), (40, 160)])
@pytest.mark.parametrize("moved", [(0, 0), (9, 0), (0, 9)])
def test_a_strip_may_be_shorter_than_the_farthest_displacement(shape: tuple[int, int], moved: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (260, 260)).astype(np.uint8)
    whole, (rows, columns), (right, down) = cv2.GaussianBlur(noise, (0, 0), 2), shape, moved
    mean = edge_directions(np.asarray(whole[20 : 20 + rows, 20 : 20 + columns], np.uint8))
    seen = edge_directions(np.asarray(whole[20 - down : 20 - down + rows, 20 - right : 20 - right + columns], np.uint8))
    structure = Structure(mean)
    found = structure.displacement(seen)
    assert found.cells == moved or (moved == (0, 0) and found.at_zero > 0.99)
    to_the_side, up_or_down = structure.smallest_visible_shift(1.0, 0.05)
    assert to_the_side is None or to_the_side < columns
    assert up_or_down is None or up_or_down < rows
