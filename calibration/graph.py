"""ONNX graphs: a small builder, and the fusion of backbone and head into one network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.head import WhiteningHead

    ValueType = tuple[int, Sequence[int]]

OPSET = 17
FLOAT = int(TensorProto.FLOAT)
UINT8 = int(TensorProto.UINT8)
IR_VERSION = 8  # the newest that every ONNX Runtime since 1.12 and TensorRT 10.3 read


@dataclass
class GraphBuilder:
    """Collects nodes and initialisers; each method adds one and returns the name of its output."""

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """An initialiser under exactly this name, so that a refit finds it."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def floats(self, *values: float) -> str:
        """An unnamed float constant, (len(values),)."""
        return self.constant(self._fresh("constant"), np.asarray(values, np.float32))

    def ints(self, *values: int) -> str:
        """An unnamed integer constant, (len(values),)."""
        return self.constant(self._fresh("constant"), np.asarray(values, np.int64))

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401
        """One node with one output.

        Args:
            operator: ONNX operator, e.g. ``Conv``.
            inputs: Names of its inputs.
            output: Name of its output; None makes one up.
            attributes: ONNX attributes of the operator.
        """
        name = output or self._fresh(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{self.prefix}/{name}", **attributes))
        return name

    def split(self, source: str, parts: int, axis: int) -> list[str]:
        """Equal parts along an axis."""
        names = [self._fresh(f"split{part}") for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [source], names, name=f"{self.prefix}/{names[0]}", axis=axis))
        return names

    def _fresh(self, stem: str) -> str:
        return f"{self.prefix}.{stem}.{len(self.nodes)}.{len(self.initializers)}"

    def model(
        self,
        inputs: Mapping[str, ValueType],
        outputs: Mapping[str, ValueType],
    ) -> onnx.ModelProto:
        """The checked model.

        Args:
            inputs: Name -> (ONNX element type, shape).
            outputs: Name -> (ONNX element type, shape).
        """
        graph = helper.make_graph(
            self.nodes,
            self.prefix,
            [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
            self.initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="shiftwatch",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


@dataclass(frozen=True)
class FeatureGraph:
    """A backbone as the fusion wants it.

    Attributes:
        model: ONNX model with one input (1, 3, height, width), float RGB, and one output (1, channels, h, w).
        mean: Per RGB channel, subtracted from the picture scaled to 0..1.
        std: Per RGB channel, divided by after that.
    """

    model: onnx.ModelProto
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        height, width = _shape(self.model.graph.input[0])[2:4]
        return height, width

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """(channels, h, w) of the output."""
        channels, height, width = _shape(self.model.graph.output[0])[1:4]
        return channels, height, width


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


# Where each picture is divided by its own brightness, this is the brightness it ends up with: that of ImageNet.
_STANDARD_BRIGHTNESS = 0.45


def feature_network(backbone: FeatureGraph, *, averaging: int, divide_brightness: bool) -> onnx.ModelProto:
    """Frame to features, for calibration: outputs ``features`` and ``pooled``."""
    graph = _begin(backbone, divide_brightness=divide_brightness)
    channels, height, width = backbone.feature_shape
    _average(graph, averaging, output="pooled")
    pooled = (1, channels, height - averaging + 1, width - averaging + 1)
    return _finish(graph, backbone, {"pooled": (FLOAT, pooled)})


def fused_network(
    backbone: FeatureGraph, head: WhiteningHead, *, averaging: int, divide_brightness: bool
) -> onnx.ModelProto:
    """Frame to score: the one network that runs on the line.

    Args:
        backbone: The feature graph.
        head: Mean and whitening of every location of the averaged grid, or of one that all share.
        averaging: Side of the averaging region, in grid cells.
        divide_brightness: Divide each frame by its own mean brightness first.

    Returns:
        Model with input ``frame`` (1, height, width, 3), uint8 BGR, and outputs ``score`` (1,), ``map`` (1, h, w)
        and ``features`` (1, d, h', w'), the last before averaging. The initialisers ``head.mean`` and
        ``head.whitening`` are float32; the mean is subtracted before whitening.
    """
    graph = _begin(backbone, divide_brightness=divide_brightness)
    channels, height, width = backbone.feature_shape
    grid = (height - averaging + 1, width - averaging + 1)
    pooled = _average(graph, averaging)
    whiten = _whiten_shared if len(head.whitening) == 1 else _whiten_local
    whiten(graph, pooled, head, (channels, *grid))
    graph.add("ReduceMax", "map", axes=[1, 2], keepdims=0, output="score")
    return _finish(graph, backbone, {"score": (FLOAT, (1,)), "map": (FLOAT, (1, *grid))})


def _whiten_local(graph: GraphBuilder, pooled: str, head: WhiteningHead, shape: tuple[int, int, int]) -> None:
    """A matrix a location: a batched product of row vectors with the transposed factors."""
    channels, height, width = shape
    locations = height * width
    flat = graph.add("Reshape", pooled, graph.ints(1, channels, locations))
    rows = graph.add("Transpose", flat, perm=[2, 0, 1])
    mean = graph.constant("head.mean", np.broadcast_to(head.mean, (locations, channels))[:, None])
    whitening = graph.constant("head.whitening", head.whitening.transpose(0, 2, 1))
    whitened = graph.add("MatMul", graph.add("Sub", rows, mean), whitening)
    distances = graph.add("ReduceSum", graph.add("Mul", whitened, whitened), graph.ints(2), keepdims=0)
    graph.add("Reshape", distances, graph.ints(1, height, width), output="map")


def _whiten_shared(graph: GraphBuilder, pooled: str, head: WhiteningHead, shape: tuple[int, int, int]) -> None:
    """One matrix for all locations: a 1x1 convolution."""
    channels, height, width = shape
    grid = (height, width) if len(head.mean) > 1 else (1, 1)
    mean = graph.constant("head.mean", head.mean.T.reshape(1, channels, *grid))
    whitening = graph.constant("head.whitening", head.whitening[0][:, :, None, None])
    whitened = graph.add("Conv", graph.add("Sub", pooled, mean), whitening)
    graph.add("ReduceSum", graph.add("Mul", whitened, whitened), graph.ints(1), keepdims=0, output="map")


def _average(graph: GraphBuilder, window: int, output: str | None = None) -> str:
    kernel = {"kernel_shape": [window, window], "strides": [1, 1]}
    return graph.add("AveragePool", "features", output=output, **kernel)


def _begin(backbone: FeatureGraph, *, divide_brightness: bool) -> GraphBuilder:
    """Nodes from ``frame`` to ``features``."""
    graph = GraphBuilder("shiftwatch")
    height, width = backbone.input_size
    pixels = graph.add("Reshape", graph.add("Cast", "frame", to=FLOAT), graph.ints(height * width, 3))
    if divide_brightness:
        brightness = graph.add("ReduceMean", pixels, axes=[0, 1], keepdims=1)
        # A black frame stays black instead of becoming infinite.
        pixels = graph.add("Div", pixels, graph.add("Max", brightness, graph.floats(1.0)))
    scale = (_STANDARD_BRIGHTNESS if divide_brightness else 1 / 255) / np.asarray(backbone.std)
    to_rgb = graph.constant("input.scale", np.diag(scale)[:, ::-1].astype(np.float32))
    offset = (-np.asarray(backbone.mean) / np.asarray(backbone.std)).astype(np.float32)
    # One matrix product scales, turns BGR to RGB and pixels to planes: ONNX Runtime takes twice as long for a
    # transposition and a 1x1 convolution, which it pads to 16 channels.
    planes = graph.add("Gemm", to_rgb, pixels, graph.constant("input.offset", offset[:, None]), transB=1)
    graph.add("Reshape", planes, graph.ints(1, 3, height, width), output="image")
    inner = onnx.compose.add_prefix(backbone.model, "backbone/").graph
    graph.nodes.append(helper.make_node("Identity", ["image"], [inner.input[0].name], name="shiftwatch/to_backbone"))
    graph.nodes.extend(inner.node)
    graph.initializers.extend(inner.initializer)
    graph.add("Identity", inner.output[0].name, output="features")
    return graph


def _finish(graph: GraphBuilder, backbone: FeatureGraph, outputs: Mapping[str, ValueType]) -> onnx.ModelProto:
    features = (FLOAT, (1, *backbone.feature_shape))
    return graph.model(
        {"frame": (UINT8, (1, *backbone.input_size, 3))},
        {**outputs, "features": features},
    )
