"""What a grid cell stands for and sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest

from calibration.backbones.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.backbones.receptive_field import grid_cell
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder, GridCell
from tests.support.levels import two_levels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Layer = tuple[str, int, int, int]  # operator, kernel, stride, padding at each side


def backbone_of(layers: Callable[[GraphBuilder, str], str], grid: int, side: int) -> Backbone:
    """A graph of two channels."""
    graph = GraphBuilder("layers")
    pixels = graph.add("Conv", "image", graph.constant("first", np.ones((2, 3, 1, 1), np.float32)))
    graph.add("Identity", layers(graph, pixels), output="features")
    model = graph.model({"image": (FLOAT, (1, 3, side, side))}, {"features": (FLOAT, (1, 2, grid, grid))})
    return Backbone((FeatureGraph(model),), "layers")


def chain(*layers: Layer) -> Callable[[GraphBuilder, str], str]:
    def build(graph: GraphBuilder, name: str) -> str:
        for operator, kernel, stride, padding in layers:
            weights = []
            if operator == "Conv":
                weights = [graph.constant(f"weights.{len(graph.nodes)}", np.ones((2, 2, kernel, kernel), np.float32))]
            name = graph.add(
                operator, name, *weights, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4
            )
        return name

    return build


@pytest.mark.parametrize(
    ("layers", "side", "grid", "expected"),
    [
        ((("Conv", 3, 2, 1),) * 4, 64, 4, GridCell(16, 16, 31)),  # as EfficientNet: 1 + 2 + 4 + 8 + 16
        ((("Conv", 3, 2, 1),) * 4, 60, 4, GridCell(16, 16, 31)),  # a side that is no multiple
        ((("Conv", 3, 1, 1), ("MaxPool", 2, 2, 0)) * 2, 64, 16, GridCell(4, 4, 10)),  # as VGG
        ((("Conv", 3, 1, 1), ("MaxPool", 2, 2, 0)) * 2, 67, 16, GridCell(4, 4, 10)),
        ((("Conv", 7, 2, 3), ("MaxPool", 3, 2, 1)), 64, 16, GridCell(4, 4, 11)),  # as ResNet
        ((("Conv", 4, 4, 0), ("Conv", 7, 1, 3)), 64, 16, GridCell(4, 4, 28)),  # as ConvNeXt
        ((("Conv", 5, 2, 0), ("AveragePool", 4, 2, 0)), 31, 6, GridCell(8, 4, 11)),  # no padding: 11 + 5 * 4 = 31
    ],
)
def test_windows_widen_the_sight_and_multiply_the_stride(
    layers: tuple[Layer, ...], side: int, grid: int, expected: GridCell
) -> None:
    assert grid_cell(backbone_of(chain(*layers), grid, side)) == expected


def test_a_changed_pixel_changes_the_cells_that_see_it() -> None:
    """Counted in the network itself."""
    layers = (("Conv", 5, 2, 2), ("Conv", 3, 1, 1), ("AveragePool", 2, 2, 0), ("Conv", 3, 1, 1))
    backbone = backbone_of(chain(*layers), 32, 128)
    (graph,) = backbone.graphs
    session = ort.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = []
    for row in range(128):
        image = np.zeros((1, 3, 128, 128), np.float32)
        image[0, 0, row, 64] = 1
        features = session.run(None, {"image": image})[0]
        seen.append(features[0, :, 16].any())
    assert grid_cell(backbone).field_px == sum(seen)


def test_the_gate_of_a_channel_and_a_norm_see_nothing_more() -> None:
    def gated(graph: GraphBuilder, name: str) -> str:
        cells = chain(("Conv", 3, 2, 1))(graph, name)
        gate = graph.add("Sigmoid", graph.add("GlobalAveragePool", cells))
        mean = graph.add("ReduceMean", cells, axes=[2, 3], keepdims=1)
        norm = graph.add("Sub", cells, graph.add("ReduceMean", cells, axes=[1], keepdims=1))
        return graph.add("Mul", graph.add("Mul", norm, gate), mean)

    assert grid_cell(backbone_of(gated, 16, 32)) == GridCell(2, 2, 3)


def test_attention_sees_the_whole_image() -> None:
    def attending(graph: GraphBuilder, name: str) -> str:
        cells = chain(("Conv", 4, 4, 0))(graph, name)
        tokens = graph.add("Reshape", cells, graph.ints(1, 2, 64))
        weights = graph.add("Softmax", graph.add("MatMul", graph.add("Transpose", tokens, perm=[0, 2, 1]), tokens))
        return graph.add("Reshape", graph.add("MatMul", tokens, weights), graph.ints(1, 2, 8, 8))

    assert grid_cell(backbone_of(attending, 8, 32)) == GridCell(4, 4, None)


def test_cells_that_are_merged_by_no_window_share_the_image() -> None:
    def merged(graph: GraphBuilder, name: str) -> str:
        cells = chain(("Conv", 2, 2, 0))(graph, name)
        return graph.add("Slice", cells, graph.ints(0, 0), graph.ints(32, 32), graph.ints(2, 3), graph.ints(4, 4))

    assert grid_cell(backbone_of(merged, 8, 64)) == GridCell(8, 8, None)


def test_the_first_level_sets_the_cell_and_the_farthest_the_sight() -> None:
    fine = grid_cell(two_levels())
    assert (fine.patch_px, fine.stride_px, fine.field_px) == (8, 8, 1 + 4 + 2 * 4 + 2 * 8)
    both = two_levels() + filterbank_backbone(64, 64)
    assert grid_cell(both).stride_px == 8
    assert grid_cell(filterbank_backbone(64, 64) + two_levels()).stride_px == 16


def test_mobilenet_from_its_file(weights: Path) -> None:
    cell = grid_cell(onnx_backbone(weights / "mobilenet_v2_stride16.onnx", 224, 224))
    assert (cell.patch_px, cell.stride_px) == (16, 16)
