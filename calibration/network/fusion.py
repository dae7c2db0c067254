"""Fuses input normalisation, backbone, reduction and head into one ONNX network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.compose
from onnx import helper

from calibration.bundle.manifest import BackboneRecord
from calibration.detectors.embedding import join_levels
from calibration.errors import BundleError
from calibration.onnx_graph import FLOAT, FROM_HALF, TO_HALF, UINT8, FeatureMap, GraphBuilder, copied, value_types

if TYPE_CHECKING:
    from calibration.backbones.backbone import Backbone
    from calibration.detectors.contract import Detector
    from calibration.detectors.head import Head
    from calibration.onnx_graph import FeatureGraph, ValueType

STANDARD_BRIGHTNESS = 0.45  # of ImageNet; an image divided by its own brightness ends up with this one


def feature_network(backbone: Backbone, detector: Detector, *, divide_brightness: bool) -> onnx.ModelProto:
    """Network for calibration, from the frame to the outputs ``features`` and ``reduced``."""
    graph, features, reduced = _up_to_head(backbone, detector, divide_brightness=divide_brightness)
    graph.add("Identity", reduced.name, output="reduced")
    return graph.model(
        {"frame": (UINT8, (1, *backbone.input_size, 3))},
        {"reduced": (FLOAT, (1, *reduced.shape)), "features": (FLOAT, (1, *features.shape))},
    )


def fused_network(backbone: Backbone, detector: Detector, head: Head, *, divide_brightness: bool) -> onnx.ModelProto:
    """Network for inspection, from the frame to the score.

    Args:
        backbone: Computes features.
        detector: Reduces them.
        head: Scores them.
        divide_brightness: Divide each frame by its own mean brightness first.

    Returns:
        Model with input ``frame`` (1, height, width, 3), uint8 BGR, and outputs ``score`` (1,), ``map`` (1, h, w) and
        ``features`` (1, d, h', w'), all levels on the grid of the first, before reduction. The head's initialisers are
        named ``head.*`` and are float32; means are subtracted before anything is multiplied.
    """
    graph, features, reduced = _up_to_head(backbone, detector, divide_brightness=divide_brightness)
    grid = head.attach(graph, reduced)
    return graph.model(
        {"frame": (UINT8, (1, *backbone.input_size, 3))},
        {"score": (FLOAT, (1,)), "map": (FLOAT, (1, *grid)), "features": (FLOAT, (1, *features.shape))},
    )


def _up_to_head(
    backbone: Backbone, detector: Detector, *, divide_brightness: bool
) -> tuple[GraphBuilder, FeatureMap, FeatureMap]:
    """The graph from the frame to its features, and to the reduced features."""
    graph = GraphBuilder("shiftwatch")
    levels = _levels(graph, backbone, divide_brightness=divide_brightness)
    features = join_levels(graph, levels, output="features")
    return graph, features, detector.reduce(graph, levels, features)


def replace_head(network: bytes, head: Head) -> bytes:
    """The network with another head; everything before the head stays the same, to the byte.

    Args:
        network: Content of a bundle's ``network.onnx``, with a ``WhiteningHead``.
        head: For the same reduced features.

    Raises:
        BundleError: The head is of another kind.
    """
    inputs, outputs, graph, reduced = _without_head(network)
    grid = head.attach(graph, reduced)
    return graph.model(inputs, {**outputs, "map": (FLOAT, (1, *grid))}).SerializeToString()


def without_head(network: bytes) -> bytes:
    """The network that ``feature_network`` makes, from a bundle's ``network.onnx``.

    Raises:
        BundleError: The head is not a ``WhiteningHead``.
    """
    inputs, outputs, graph, reduced = _without_head(network)
    graph.add("Identity", reduced.name, output="reduced")
    kept = {"reduced": (FLOAT, (1, *reduced.shape)), "features": outputs["features"]}
    return graph.model(inputs, kept).SerializeToString()


def _without_head(
    network: bytes,
) -> tuple[dict[str, ValueType], dict[str, ValueType], GraphBuilder, FeatureMap]:
    """Inputs and outputs of the network, the graph before the head, and what the head reads.

    Nodes are copied, because a part of a protobuf message keeps the whole message in memory.
    """
    model = onnx.load_from_string(network)
    makers = {output: node for node in model.graph.node for output in node.output}
    mean = next((node for node in model.graph.node if "head.mean" in node.input), None)
    if mean is None:
        raise BundleError(
            what="the network has no head that could be replaced", remedy="calibrate again, with mean_shift or padim"
        )
    reduced = mean.input[0]
    while makers[reduced].op_type in {"Reshape", "Transpose"}:  # these belong to the head: no reduction ends with them
        reduced = makers[reduced].input[0]
    graph = GraphBuilder(model.graph.name)
    behind = {reduced}
    read_behind: set[str] = set()
    for node in model.graph.node:  # in topological order
        if behind.isdisjoint(node.input):
            graph.nodes.append(copied(node))
        else:
            behind.update(node.output)
            read_behind.update(node.input)
    of_head = read_behind - {name for node in graph.nodes for name in node.input}
    graph.initializers.extend(copied(tensor) for tensor in model.graph.initializer if tensor.name not in of_head)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in of_head}
    inputs, outputs = value_types(model.graph.input), value_types(model.graph.output)
    _, (_, height, width) = outputs["map"]
    if "head.rows" in sizes:  # the map is smoothed
        height, width = sizes["head.rows"][1], sizes["head.columns"][0]
    return inputs, outputs, graph, FeatureMap(reduced, (sizes["head.whitening"][1], height, width))


def feature_shape(backbone: Backbone) -> tuple[int, int, int]:
    """(channels, h, w) of the output ``features``."""
    return sum(backbone.level_channels), *backbone.graphs[0].levels[0].shape[1:]


def backbone_record(backbone: Backbone) -> BackboneRecord:
    """The backbone's entry in the manifest."""
    channels, height, width = feature_shape(backbone)
    return BackboneRecord(
        name=backbone.name,
        stages=backbone.stages,
        weights_sha256=backbone.weights_sha256,
        channels=channels,
        grid=(height, width),
    )


def reduced_shape(extractor: onnx.ModelProto) -> tuple[int, int, int]:
    """(d, h, w) of the output ``reduced`` of a network made by ``feature_network``."""
    _, (_, channels, height, width) = value_types(extractor.graph.output)["reduced"]
    return channels, height, width


def _levels(graph: GraphBuilder, backbone: Backbone, *, divide_brightness: bool) -> tuple[FeatureMap, ...]:
    """Nodes from ``frame`` to the outputs of every backbone."""
    image = graph.add("Cast", "frame", to=FLOAT)
    if divide_brightness:
        brightness = graph.add("ReduceMean", image, axes=[1, 2, 3], keepdims=1)
        # A black frame stays black instead of becoming infinite.
        image = graph.add("Div", image, graph.add("Max", brightness, graph.floats(1.0)))
    pixels = graph.add("Reshape", image, graph.ints(-1, 3))
    unit = STANDARD_BRIGHTNESS if divide_brightness else 1 / 255
    return tuple(
        level for number, part in enumerate(backbone.graphs) for level in _part(graph, part, number, pixels, unit)
    )


def _part(graph: GraphBuilder, part: FeatureGraph, number: int, pixels: str, unit: float) -> tuple[FeatureMap, ...]:
    """One backbone on (n * height * width, 3) BGR pixels, which ``unit`` scales to 0..1."""
    height, width = part.input_size
    name = f"backbone{number or ''}"
    to_rgb = graph.constant(f"{name}.scale", np.diag(unit / np.asarray(part.std))[:, ::-1].astype(np.float32))
    offset = (-np.asarray(part.mean) / np.asarray(part.std)).astype(np.float32)
    # One matrix product scales, swaps BGR to RGB and turns pixels into planes: ONNX Runtime takes twice as long for a
    # transposition and a 1x1 convolution, which it pads to 16 channels.
    planes = graph.add("Gemm", to_rgb, pixels, graph.constant(f"{name}.offset", offset[:, None]), transB=1)
    image = graph.add("Transpose", graph.add("Reshape", planes, graph.ints(3, -1, height, width)), perm=[1, 0, 2, 3])
    inner = onnx.compose.add_prefix(part.model, f"{name}/").graph
    graph.nodes.append(helper.make_node("Identity", [image], [inner.input[0].name], name=f"{TO_HALF}{name}"))
    graph.nodes.extend(inner.node)
    graph.initializers.extend(inner.initializer)
    levels = []
    for index, (output, level) in enumerate(zip(inner.output, part.levels, strict=True)):
        levels.append(FeatureMap(f"{name}.level{index}", level.shape))
        graph.nodes.append(
            helper.make_node("Identity", [output.name], [levels[-1].name], name=f"{FROM_HALF}{name}/{index}")
        )
    return tuple(levels)
