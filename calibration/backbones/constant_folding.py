"""Folds constants: exporters write shapes, paddings and indices as graphs, which need computing only once.

A padding with zeros then becomes a part of the convolution that reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray


def foldable_tensors(graph: onnx.GraphProto) -> list[str]:
    """Tensors that are the same for every image and are read by nodes whose outputs are not.

    Args:
        graph: With fixed shapes, which are constants, too.
    """
    if _has_branches(graph):
        return []
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


def absorb_paddings(graph: onnx.GraphProto) -> None:
    """Let convolutions pad by themselves where a node pads with zeros for them alone.

    Outputs stay the same to the bit. ONNX Runtime convolves in blocks of channels, and leaves these blocks for a node
    that pads.

    Args:
        graph: With constants folded; changed in place.
    """
    if _has_branches(graph):
        return
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    for node in [node for node in graph.node if node.op_type == "Pad" and node.output[0] not in outputs]:
        padded = node.output[0]
        border = _zero_border(node, constants)
        readers = [each for each in graph.node if padded in each.input]
        if border is not None and all(_takes_padding(reader, padded) for reader in readers):
            for reader in readers:
                _pad(reader, border)
                reader.input[0] = node.input[0]
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | outputs
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _has_branches(graph: onnx.GraphProto) -> bool:
    """Whether a node has graphs inside, whose inputs are not listed."""
    return any(attribute.HasField("g") for node in graph.node for attribute in node.attribute)


def _zero_border(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> list[int] | None:
    """(top, left, bottom, right) that a node pads with zeros; None if it pads otherwise."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant")
    _, sizes, value, axes = [*node.input, "", ""][:4]
    if mode != b"constant" or axes or sizes not in constants or (value and value not in constants):
        return None
    if value and numpy_helper.to_array(constants[value]).any():
        return None
    match numpy_helper.to_array(constants[sizes]).tolist():
        case [0, 0, top, left, 0, 0, bottom, right] if min(top, left, bottom, right) >= 0:
            return [top, left, bottom, right]
    return None


def _takes_padding(node: onnx.NodeProto, padded: str) -> bool:
    pads_alone = all(attribute.name != "auto_pad" or attribute.s == b"NOTSET" for attribute in node.attribute)
    return node.op_type == "Conv" and node.input[0] == padded and padded not in node.input[1:] and pads_alone


def _pad(node: onnx.NodeProto, border: list[int]) -> None:
    before = next((attribute for attribute in node.attribute if attribute.name == "pads"), None)
    if before is not None:
        border = [one + other for one, other in zip(border, before.ints, strict=True)]
        node.attribute.remove(before)
    node.attribute.append(helper.make_attribute("pads", border))
