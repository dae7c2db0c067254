"""A small builder for ONNX graphs, and the graph of a backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    ValueType = tuple[int, Sequence[int]]

_Message = TypeVar("_Message", onnx.ModelProto, onnx.NodeProto, onnx.TensorProto)

# Nodes with these in their names do nothing in FP32: they are the borders of what may be computed in half precision.
# ``to_half/backbone1`` leads to tensors whose names all begin with ``backbone1/``. Where a backbone returns to FP32
# before its end, the constants behind that border have ``from_half/`` in their names, too.
TO_HALF = "to_half/"
FROM_HALF = "from_half/"

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
        """A named initialiser, so that a refit finds it."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def floats(self, *values: float) -> str:
        """An unnamed float constant, (len(values),)."""
        return self.constant(self._fresh("constant"), np.asarray(values, np.float32))

    def ints(self, *values: int) -> str:
        """An unnamed integer constant, (len(values),)."""
        return self.constant(self._fresh("constant"), np.asarray(values, np.int64))

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401
        """Add a node with one output.

        Args:
            operator: ONNX operator, e.g. ``Conv``.
            inputs: Names of the inputs.
            output: Name of the output; None generates one.
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

    def model(self, inputs: Mapping[str, ValueType], outputs: Mapping[str, ValueType]) -> onnx.ModelProto:
        """The checked model; inputs and outputs are name -> (ONNX element type, shape)."""
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


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A tensor in a graph: its name, and its shape (channels, h, w) for one image."""

    name: str
    shape: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class GridCell:
    """A cell of a feature grid, in pixels of the network input.

    Attributes:
        patch_px: R0, side of the patch that it stands for.
        stride_px: tau, from one cell to the next.
        field_px: Side of what it sees, its receptive field, the padded border included; None: the whole image.
    """

    patch_px: int
    stride_px: int
    field_px: int | None


@dataclass(frozen=True)
class FeatureGraph:
    """A backbone's graph, ready to be fused.

    Attributes:
        model: ONNX model with one input (1, 3, height, width), float RGB, and one output for each level,
            (1, channels, h, w). What half precision cannot hold comes behind an ``Identity`` to ``from_half/...``.
        mean: Mean of each RGB channel, subtracted from the image scaled to 0..1.
        std: Standard deviation of each RGB channel; divides the result.
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
    def levels(self) -> tuple[FeatureMap, ...]:
        """The outputs."""
        return tuple(_feature_map(output) for output in self.model.graph.output)


def value_types(infos: Iterable[onnx.ValueInfoProto]) -> dict[str, ValueType]:
    """Name -> (ONNX element type, shape) of a graph's inputs or outputs, as ``GraphBuilder.model`` takes them."""
    return {info.name: (info.type.tensor_type.elem_type, _shape(info)) for info in infos}


def external_tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """All tensors whose values lie in other files, also those of branches and attributes."""
    return [
        message
        for message in _messages(model)
        if isinstance(message, onnx.TensorProto)
        and (message.data_location == onnx.TensorProto.EXTERNAL or message.external_data)
    ]


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field_of, value in message.ListFields():
        if field_of.type == FieldDescriptor.TYPE_MESSAGE:
            for each in (value,) if isinstance(value, Message) else value:
                yield from _messages(each)


def copied(message: _Message) -> _Message:
    """A deep copy of a protobuf message."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _feature_map(value: onnx.ValueInfoProto) -> FeatureMap:
    channels, height, width = _shape(value)[1:4]
    return FeatureMap(value.name, (channels, height, width))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
