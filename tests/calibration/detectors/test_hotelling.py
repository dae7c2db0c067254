"""Sizes in pixels, and what the graph of ``hotelling`` is. ``papers/test_hermann.py`` has the scores."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.detectors.hotelling import Hotelling, HotellingHead
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap, GraphBuilder, GridCell
from calibration.workstation.presets import PRESETS

if TYPE_CHECKING:
    from typing import Literal

B4 = GridCell(16, 16, 711)
COARSE = GridCell(36, 4, 33)


@pytest.mark.parametrize(
    ("patch_px", "region_px", "cell", "expected"),
    [
        (64, 80, B4, (4, 2)),
        (16, 16, B4, (1, 1)),
        (48, 112, B4, (3, 5)),
        (36, 44, COARSE, (1, 3)),
        (40, 40, COARSE, (2, 1)),
    ],
)
def test_pixels_become_cells(patch_px: int, region_px: int, cell: GridCell, expected: tuple[int, int]) -> None:
    on_grid = Hotelling(patch_px, region_px).on_grid(cell, (14, 14))
    assert (on_grid.patch, on_grid.averaging) == expected


def test_the_preset_has_the_sizes_of_the_paper() -> None:
    detector = PRESETS["hermann2022"].detector
    assert isinstance(detector, Hotelling)
    on_grid = detector.on_grid(B4, (14, 14))
    assert (on_grid.patch, on_grid.averaging, on_grid.location, on_grid.modes) == (4, 2, "local", 1)


@pytest.mark.parametrize(
    ("detector", "what", "remedy"),
    [
        (Hotelling(60, 80), "patch_px = 60 is not possible.*stands for 16 pixels", "16, 32, 48, 64, 80, 96 or so on"),
        (Hotelling(8, 80), "patch_px = 8 is not possible", "16, 32"),
        (Hotelling(64, 90), "region_px = 90 is not possible.*16 pixels further", "64, 80, 96"),
        (Hotelling(64, 48), "region_px = 48 is not possible", "64, 80"),
        (Hotelling(64, 240), r"region_px = 240 is larger than the 14x14 cells", "224 or less"),
        (Hotelling(240, location="global"), "patch_px = 240 is larger", "224 or less"),
    ],
)
def test_sizes_that_the_cells_do_not_allow_are_refused(detector: Hotelling, what: str, remedy: str) -> None:
    with pytest.raises(SettingError, match=f"(?s){what}.*{remedy}"):
        detector.on_grid(B4, (14, 14))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"location": "everywhere"}, "give local, shared or global"), ({"modes": 0}, "modes = 0 is too small")],
)
def test_values_outside_their_range_are_refused(options: dict[str, Literal["local"]], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Hotelling(**options)  # type: ignore[arg-type]


def test_the_head_is_one_pool_and_one_convolution() -> None:
    head = HotellingHead(np.zeros((3, 6, 7), np.float32), np.eye(12, dtype=np.float32), 2, (3, 3))
    graph = GraphBuilder("head")
    assert head.attach(graph, FeatureMap("reduced", (3, 6, 7))) == (3, 4)
    assert Counter(node.op_type for node in graph.nodes) == Counter(
        ["Sub", "AveragePool", "Conv", "Mul", "ReduceSum", "Identity", "ReduceMax"]
    )
