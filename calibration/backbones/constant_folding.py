"""Folds constants: exporters write shapes, paddings and indices as graphs, which need computing only once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray


def foldable_tensors(graph: onnx.GraphProto) -> list[str]:
    """Tensors that are the same for every image and are read by nodes whose outputs are not.

    Args:
        graph: With fixed shapes, which are constants, too.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return []  # the inputs of a branch are not listed
    given = {tensor.name for tensor in graph.initializer} | {""}
    known = set(given)
    needed: dict[str, None] = {}  # an ordered set
    for node in graph.node:
        if node.op_type in {"Shape", "Size"} or known.issuperset(node.input):
            known.update(node.output)
        else:
            needed.update(dict.fromkeys(node.input))
    return [name for name in needed if name in known - given]


def fold(graph: onnx.GraphProto, values: Mapping[str, NDArray[Any]]) -> None:
    """Replace the nodes that compute these tensors by initialisers.

    Args:
        graph: Changed in place.
        values: The value of each tensor that ``foldable_tensors`` returned.
    """
    if not values:
        return
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(name for name in node.input if name not in values)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    initializers += [numpy_helper.from_array(value, name) for name, value in values.items()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
