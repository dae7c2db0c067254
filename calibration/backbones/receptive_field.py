"""What a grid cell is in pixels of the network input: the patch that it stands for, and how far it sees.

The graph is walked from the image on. Convolutions and pools widen the sight and multiply the stride. A mean over the
whole image, such as the gate of a squeeze-and-excitation block, says nothing about position and is left out; a product
of two computed tensors is attention, which sees the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from onnx import helper

from calibration.onnx_graph import GridCell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from calibration.backbones.backbone import Backbone
    from calibration.onnx_graph import FeatureGraph

_WINDOWED = {"Conv", "MaxPool", "AveragePool", "LpPool"}


@dataclass(frozen=True)
class _Sight:
    """Pixels from one element of a tensor to the next, and those that one sees."""

    stride: float = 1
    field: float = 1


_NOWHERE = _Sight(0, 0)  # the whole image, and no place in it


def grid_cell(backbone: Backbone) -> GridCell:
    """The cell of the grid that the first level sets; it sees what the cells of all levels see together."""
    cells = [cell for graph in backbone.graphs for cell in _cells(graph)]
    fields = [cell.field_px for cell in cells]
    seen = [each for each in fields if each is not None]
    return GridCell(cells[0].patch_px, cells[0].stride_px, max(seen) if len(seen) == len(fields) else None)


def _cells(graph: FeatureGraph) -> list[GridCell]:
    """The cell of each level.

    A side of n cells has R0 + (n - 1) tau pixels (Hermann et al. 2022, eq. 12). Padding makes up for pixels that are
    not there, and floors leave some out, hence R0 in whole strides: 16 for a stride of 16 with or without padding.
    """
    sights = _sights(graph.model.graph)
    side = graph.input_size[0]
    return [_cell(side, level.shape[1], sights[level.name]) for level in graph.levels]


def _cell(side: int, cells: int, sight: _Sight) -> GridCell:
    stride = int(sight.stride)
    whole = sight.field == inf
    first = side - (cells - 1) * stride
    if not 0 < first < stride + max(stride, 0 if whole else sight.field):
        # Cells were merged or divided by something other than a window: they share the image among themselves.
        stride, whole = max(1, side // cells), True
        first = stride
    return GridCell(stride * max(1, first // stride), stride, None if whole else int(sight.field))


def _sights(graph: onnx.GraphProto) -> dict[str, _Sight]:
    """By name, of everything that is computed from the image."""
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    sights = {graph.input[0].name: _Sight()}
    for node in graph.node:
        sources = [sights[name] for name in node.input if name in sights]
        if sources:
            seen = _NOWHERE if _of_whole_image(node) else _seen(node, sources, sizes)
            sights.update(dict.fromkeys(node.output, seen))
    return sights


def _seen(node: onnx.NodeProto, sources: Sequence[_Sight], sizes: Mapping[str, Sequence[int]]) -> _Sight:
    placed = [each for each in sources if each != _NOWHERE]
    if not placed:
        return _NOWHERE
    stride, field = max(each.stride for each in placed), max(each.field for each in placed)
    if node.op_type in _WINDOWED:
        given = _attributes(node)
        side = given.get("kernel_shape") or sizes[node.input[1]][2:]
        steps, dilations = given.get("strides") or [1], given.get("dilations") or [1]
        return _Sight(stride * steps[0], field + stride * (side[0] - 1) * dilations[0])
    attention = node.op_type == "MatMul" and len(placed) > 1
    return _Sight(stride, inf if attention else field)


def _of_whole_image(node: onnx.NodeProto) -> bool:
    if node.op_type.startswith("Global"):
        return True
    return node.op_type.startswith("Reduce") and len(_attributes(node).get("axes", ())) > 1


def _attributes(node: onnx.NodeProto) -> dict[str, Sequence[int]]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
