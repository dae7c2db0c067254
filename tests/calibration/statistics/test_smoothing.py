"""Score maps are enlarged and blurred as the papers do, and stay where they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.statistics.smoothing import Smoothing
from tests.calibration.papers.oracle_resampling import bilinear, gaussian_blur

sides = st.integers(1, 9)


@given(sides, sides, st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]))
def test_it_is_a_bilinear_enlargement_with_a_blur(height: int, width: int, rows: int, columns: int, sigma: int) -> None:
    maps = np.random.default_rng(0).random((2, height, width))
    expected = [gaussian_blur(enlarged, sigma) for enlarged in bilinear(maps, (rows, columns))]
    seen = Smoothing((rows, columns), sigma)(maps.astype(np.float32))
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 16), (48, 64)])
def test_patches_that_are_two_cells_apart_stay_where_they_were_taken(size: tuple[int, int]) -> None:
    """A slope taken at every second cell, from the first on, is that slope again between its ends."""
    rows, columns = np.indices((12, 16)).astype(np.float32)
    slope = 3 * rows + columns + 1
    again = Smoothing(size, 0, stride=2)(slope[None, ::2, ::2])[0]
    expected = bilinear(slope.astype(np.float64), size)
    inside = tuple(slice(side // 12, -side // 6) for side in size)
    np.testing.assert_allclose(again[inside], expected[inside], rtol=1e-5)
