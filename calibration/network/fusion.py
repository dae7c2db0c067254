"""The fusion: frame, backbone, reduction and head as one ONNX network."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx
import onnx.compose
from onnx import helper

from calibration.bundle.manifest import BackboneRecord
from calibration.errors import BundleError
from calibration.network.half_precision import FROM_HALF, TO_HALF
from calibration.onnx_graph import FLOAT, UINT8, FeatureMap, GraphBuilder, value_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.contract import Detector
    from calibration.detectors.head import Head
    from calibration.onnx_graph import FeatureGraph, ValueType

_Part = TypeVar("_Part", onnx.NodeProto, onnx.TensorProto)
# Where each picture is divided by its own brightness, this is the brightness it ends up with: that of ImageNet.
STANDARD_BRIGHTNESS = 0.45


def feature_network(backbone: Backbone, detector: Detector, *, divide_brightness: bool) -> onnx.ModelProto:
    """Frame to what the detector learns from, for calibration: outputs ``features`` and ``reduced``."""
    graph = GraphBuilder("shiftwatch")
    levels = _levels(graph, backbone, divide_brightness=divide_brightness)
    features = _features(graph, levels)
    reduced = detector.reduce(graph, levels, features)
    graph.add("Identity", reduced.name, output="reduced")
    return graph.model(
        {"frame": (UINT8, (1, *backbone.input_size, 3))},
        {"reduced": (FLOAT, (1, *reduced.shape)), "features": (FLOAT, (1, *features.shape))},
    )


def fused_network(backbone: Backbone, detector: Detector, head: Head, *, divide_brightness: bool) -> onnx.ModelProto:
    """Frame to score: the one network that runs on the line.

    Args:
        backbone: Where features come from.
        detector: Reduces them.
        head: Scores them.
        divide_brightness: Divide each frame by its own mean brightness first.

    Returns:
        Model with input ``frame`` (1, height, width, 3), uint8 BGR, and outputs ``score`` (1,), ``map`` (1, h, w)
        and ``features`` (1, d, h', w'), all levels at the resolution of the first, before reduction. The head's
        initialisers are named ``head.*`` and are float32; means are subtracted before anything is multiplied.
    """
    graph = GraphBuilder("shiftwatch")
    levels = _levels(graph, backbone, divide_brightness=divide_brightness)
    features = _features(graph, levels)
    grid = head.attach(graph, detector.reduce(graph, levels, features))
    return graph.model(
        {"frame": (UINT8, (1, *backbone.input_size, 3))},
        {
            "score": (FLOAT, (1,)),
            "map": (FLOAT, (1, *grid)),
            "features": (FLOAT, (1, *features.shape)),
        },
    )


def replace_head(network: bytes, head: Head) -> bytes:
    """The network with another head, as on a device that learns on: needs no backbone but the one inside.

    What comes before the head stays as it is, to the byte; with the head that it has, so does the whole.

    Args:
        network: Content of a bundle's ``network.onnx``, whose head is a ``WhiteningHead``; it is not changed.
        head: For the same reduced features.

    Raises:
        BundleError: Its head is of another kind.
    """
    inputs, outputs, graph, reduced = _without_head(network)
    head.attach(graph, reduced)
    return graph.model(inputs, outputs).SerializeToString()


def without_head(network: bytes) -> bytes:
    """The network without its head: what ``feature_network`` makes, from a bundle's ``network.onnx``.

    Raises:
        BundleError: Its head is not a ``WhiteningHead``.
    """
    inputs, outputs, graph, reduced = _without_head(network)
    graph.add("Identity", reduced.name, output="reduced")
    kept = {"reduced": (FLOAT, (1, *reduced.shape)), "features": outputs["features"]}
    return graph.model(inputs, kept).SerializeToString()


def _without_head(
    network: bytes,
) -> tuple[dict[str, ValueType], dict[str, ValueType], GraphBuilder, FeatureMap]:
    """Inputs and outputs of the network, all of it that comes before the head, and what the head reads.

    All copied: a part of a message keeps the whole in memory, of which a device has little.
    """
    model = onnx.load_from_string(network)
    makers = {output: node for node in model.graph.node for output in node.output}
    mean = next((node for node in model.graph.node if "head.mean" in node.input), None)
    if mean is None:
        raise BundleError(
            what="the network has no head that could be exchanged", remedy="calibrate again, with mean_shift or padim"
        )
    reduced = mean.input[0]
    while makers[reduced].op_type in {"Reshape", "Transpose"}:  # of the head: no reduction ends with these
        reduced = makers[reduced].input[0]
    graph = GraphBuilder(model.graph.name)
    behind = {reduced}
    read_behind: set[str] = set()
    for node in model.graph.node:  # each after those that it reads
        if behind.isdisjoint(node.input):
            graph.nodes.append(_copy(node))
        else:
            behind.update(node.output)
            read_behind.update(node.input)
    of_head = read_behind - {name for node in graph.nodes for name in node.input}
    graph.initializers.extend(_copy(tensor) for tensor in model.graph.initializer if tensor.name not in of_head)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in of_head}
    inputs, outputs = value_types(model.graph.input), value_types(model.graph.output)
    _, (_, height, width) = outputs["map"]
    return inputs, outputs, graph, FeatureMap(reduced, (sizes["head.whitening"][1], height, width))


def _copy(message: _Part) -> _Part:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def feature_shape(backbone: Backbone) -> tuple[int, int, int]:
    """(channels, h, w) of the output ``features``."""
    levels = [level for graph in backbone.graphs for level in graph.levels]
    return sum(level.shape[0] for level in levels), *levels[0].shape[1:]


def backbone_record(backbone: Backbone) -> BackboneRecord:
    """For the manifest."""
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
    output = next(output for output in extractor.graph.output if output.name == "reduced")
    _, channels, height, width = (dimension.dim_value for dimension in output.type.tensor_type.shape.dim)
    return channels, height, width


def _levels(graph: GraphBuilder, backbone: Backbone, *, divide_brightness: bool) -> tuple[FeatureMap, ...]:
    """Nodes from ``frame`` to the outputs of every backbone."""
    picture = graph.add("Cast", "frame", to=FLOAT)
    if divide_brightness:
        brightness = graph.add("ReduceMean", picture, axes=[1, 2, 3], keepdims=1)
        # A black frame stays black instead of becoming infinite.
        picture = graph.add("Div", picture, graph.add("Max", brightness, graph.floats(1.0)))
    pixels = graph.add("Reshape", picture, graph.ints(-1, 3))
    unit = STANDARD_BRIGHTNESS if divide_brightness else 1 / 255
    return tuple(
        level for number, part in enumerate(backbone.graphs) for level in _part(graph, part, number, pixels, unit)
    )


def _part(graph: GraphBuilder, part: FeatureGraph, number: int, pixels: str, unit: float) -> tuple[FeatureMap, ...]:
    """One backbone on (n * height * width, 3) BGR pixels; ``unit`` turns them into what it was trained on."""
    height, width = part.input_size
    name = f"backbone{number or ''}"
    to_rgb = graph.constant(f"{name}.scale", np.diag(unit / np.asarray(part.std))[:, ::-1].astype(np.float32))
    offset = (-np.asarray(part.mean) / np.asarray(part.std)).astype(np.float32)
    # One matrix product scales, turns BGR to RGB and pixels to planes: ONNX Runtime takes twice as long for a
    # transposition and a 1x1 convolution, which it pads to 16 channels.
    planes = graph.add("Gemm", to_rgb, pixels, graph.constant(f"{name}.offset", offset[:, None]), transB=1)
    image = graph.add("Transpose", graph.add("Reshape", planes, graph.ints(3, -1, height, width)), perm=[1, 0, 2, 3])
    inner = onnx.compose.add_prefix(part.model, f"{name}/").graph
    entry, leave = (f"{TO_HALF}{name}", f"{FROM_HALF}{name}") if part.fp16_safe else (f"to/{name}", f"from/{name}")
    graph.nodes.append(helper.make_node("Identity", [image], [inner.input[0].name], name=entry))
    graph.nodes.extend(inner.node)
    graph.initializers.extend(inner.initializer)
    levels = []
    for index, (output, level) in enumerate(zip(inner.output, part.levels, strict=True)):
        levels.append(FeatureMap(f"{name}.level{index}", level.shape))
        graph.nodes.append(helper.make_node("Identity", [output.name], [levels[-1].name], name=f"{leave}/{index}"))
    return tuple(levels)


def _features(graph: GraphBuilder, levels: Sequence[FeatureMap]) -> FeatureMap:
    """All levels on the grid of the first, as ``features``."""
    channels = sum(level.shape[0] for level in levels)
    grid = levels[0].shape[1:]
    parts = [_on_grid(graph, level, grid) for level in levels]
    if len(parts) == 1:
        graph.add("Identity", parts[0], output="features")
    else:
        graph.add("Concat", *parts, axis=1, output="features")
    return FeatureMap("features", (channels, *grid))


def _on_grid(graph: GraphBuilder, level: FeatureMap, grid: tuple[int, int]) -> str:
    """A level on another grid: averaged where it is a multiple finer, else interpolated (bilinear)."""
    _, height, width = level.shape
    if (height, width) == grid:
        return level.name
    if height % grid[0] == 0 and width % grid[1] == 0:
        cell = [height // grid[0], width // grid[1]]
        return graph.add("AveragePool", level.name, kernel_shape=cell, strides=cell)
    sizes = graph.ints(1, level.shape[0], *grid)
    return graph.add("Resize", level.name, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")
