"""What does not depend on the picture is computed once: exporters write shapes, paddings and indices as graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray


def foldable_tensors(graph: onnx.GraphProto) -> list[str]:
    """Tensors that are the same for every picture, where they enter what is not.

    Args:
        graph: With fixed shapes, so that they are constants, too.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return []  # what a branch reads does not stand among its inputs
    given = {tensor.name for tensor in graph.initializer} | {""}
    known = set(given)
    needed: dict[str, None] = {}  # a set that keeps its order
    for node in graph.node:
        if node.op_type in {"Shape", "Size"} or known.issuperset(node.input):
            known.update(node.output)
        else:
            needed.update(dict.fromkeys(node.input))
    return [name for name in needed if name in known - given]


def fold(graph: onnx.GraphProto, values: Mapping[str, NDArray[Any]]) -> None:
    """Put initialisers in place of the nodes that compute these tensors.

    Args:
        graph: Changed in place.
        values: Of all that ``foldable`` named.
    """
    if not values:
        return
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(name for name in node.input if name not in values)
    initializers = [tensor for tensor in graph.initializer if tensor.name in wanted]
    initializers += [numpy_helper.from_array(value, name) for name, value in values.items()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
