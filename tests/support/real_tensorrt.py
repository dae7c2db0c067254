"""NVIDIA's own parser and builder, which TensorRT for RTX brings to machines without a GPU."""

from __future__ import annotations

import os
import platform
import re
import sys
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx
import pytest

from calibration.engine.tensorrt_build import BuildOptions, build
from calibration.engine.tensorrt_library import TENSORRT_RTX, process_journal
from calibration.errors import EngineError
from calibration.network.half_precision import half_precision
from calibration.onnx_graph import FROM_HALF, TO_HALF
from calibration.progress import silent
from tests.support.built_table import add_row

if TYPE_CHECKING:
    from types import ModuleType

# NVIDIA's docs/operators.md of onnx-tensorrt for TensorRT 10.6: operators marked Y, less those that came after 10.3.
READ_BY_10_3 = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
        Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace
        DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
        GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
        GroupNormalization HardSigmoid HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LRN
        LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max
        MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad
        ParametricSoftplus Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
        Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round ScaledTanh Scan Scatter ScatterElements
        ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt
        Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
        """,
    )
)


class Built(NamedTuple):
    """What NVIDIA's library made of a network."""

    layers: int
    parsed_s: float
    built_s: float
    plan_bytes: int


def rtx() -> ModuleType:
    """The bindings, or the reason why this cannot be tested here; in CI on x86-64 that is a failure."""
    try:
        return TENSORRT_RTX.imported()
    except EngineError as error:
        reason = error.one_line
    if os.environ.get("CI") and (sys.platform, platform.machine()) == ("linux", "x86_64"):
        pytest.fail(reason)
    pytest.skip(reason)


class Parsed:
    """A network as NVIDIA's parser sees it; ``wrong`` says where that is not what the graph says."""

    def __init__(self, network: onnx.ModelProto) -> None:
        trt, self._network = rtx(), network
        logger = process_journal(TENSORRT_RTX).logger
        self.builder = trt.Builder(logger)
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.definition = self.builder.create_network(flags)
        self._parser = trt.OnnxParser(self.definition, logger)  # owns the weights
        self.read = self._parser.parse(network.SerializeToString())

    def wrong(self) -> list[str]:
        """Types that are not the graph's, precision that changes elsewhere than at its borders, names that are lost."""
        return [*self._wrong_ends(), *self._wrong_types(), *self._wrong_borders(), *self._lost_weights()]

    def _wrong_ends(self) -> list[str]:
        definition, graph = self.definition, self._network.graph
        inputs = [definition.get_input(number) for number in range(definition.num_inputs)]
        outputs = [definition.get_output(number) for number in range(definition.num_outputs)]
        ends = [(tensor.name, tensor.dtype.name, tuple(tensor.shape)) for tensor in (*inputs, *outputs)]
        expected = [(info.name, *_form(info)) for info in (*graph.input, *graph.output)]
        return [] if ends == expected else [f"{ends} are not {expected}"]

    def _wrong_types(self) -> list[str]:
        graph = onnx.shape_inference.infer_shapes(self._network, check_type=True, strict_mode=True).graph
        expected = {info.name: _form(info)[0] for info in (*graph.output, *graph.value_info)}
        return [
            f"{tensor.name} is {tensor.dtype.name}, not {expected[tensor.name]}"
            for layer in self._layers()
            for tensor in _outputs(layer)
            if expected.get(tensor.name, tensor.dtype.name) != tensor.dtype.name
        ]

    def _wrong_borders(self) -> list[str]:
        changing = [layer.name for layer in self._layers() if len(_precisions(layer)) > 1]
        outside = [name for name in changing if not name.startswith(TO_HALF) and FROM_HALF not in name]
        return [f"precision changes in {', '.join(outside)}"] if outside else []

    def _lost_weights(self) -> list[str]:
        names = [tensor.name for tensor in self._network.graph.initializer if tensor.name.startswith("head.")]
        return [f"no weights {name}" for name in names if not self.definition.mark_weights_refittable(name)]

    def _layers(self) -> list[Any]:
        return [self.definition.get_layer(number) for number in range(self.definition.num_layers)]


def _form(info: onnx.ValueInfoProto) -> tuple[str, tuple[int, ...]]:
    kind = info.type.tensor_type
    name = onnx.TensorProto.DataType.Name(kind.elem_type)
    return name.replace("FLOAT16", "HALF"), tuple(side.dim_value for side in kind.shape.dim)


def _outputs(layer: Any) -> list[Any]:  # noqa: ANN401 - NVIDIA's
    return [layer.get_output(number) for number in range(layer.num_outputs)]


def _precisions(layer: Any) -> set[str]:  # noqa: ANN401 - NVIDIA's
    """Types of the floating-point numbers that a layer takes and gives."""
    tensors = [layer.get_input(number) for number in range(layer.num_inputs)] + _outputs(layer)
    return {tensor.dtype.name for tensor in tensors if tensor is not None} & {"FLOAT", "HALF", "BF16"}


def built(network: onnx.ModelProto) -> Built:
    """Parsed, compared with the graph, and built by this project's own way.

    Raises:
        EngineError: NVIDIA's library refuses it.
    """
    start_s = perf_counter()
    parsed = Parsed(network)
    parsed_s = perf_counter() - start_s
    wrong = parsed.wrong() if parsed.read else []
    assert not wrong, "; ".join(wrong)
    start_s = perf_counter()
    plan = build(TENSORRT_RTX, network.SerializeToString(), BuildOptions(), b"", silent, Event()).plan
    return Built(parsed.definition.num_layers, parsed_s, perf_counter() - start_s, len(plan))


def prove(name: str, network: onnx.ModelProto, request: pytest.FixtureRequest) -> None:
    """Build a network and its half-precision variant, which adds a row to the table at the end of all tests."""
    operators = {(node.domain, node.op_type) for node in network.graph.node}
    assert operators <= {("", each) for each in READ_BY_10_3}, "TensorRT 10.3 does not read all of this"
    cells = [name]
    for each in (built(network), built(half_precision(network))):
        cells += [
            f"{each.layers}",
            f"{each.parsed_s:.2f} s",
            f"{each.built_s:.2f} s",
            f"{each.plan_bytes / 1e6:.1f} MB",
        ]
    add_row(request, cells)
