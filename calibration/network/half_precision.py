"""The half-precision variant of the fused network, derived on the device from the network in the bundle.

TensorRT takes precision from the graph (strong typing), so it is decided here and not by a builder.
"""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.errors import EngineError
from calibration.onnx_graph import FROM_HALF, TO_HALF, copied

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float16).max)
_REASON_WIDTH = 250
_REMEDY = "build for FP32, or calibrate with another backbone"


def half_precision(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network with FP16 between its borders: one cast into each backbone, one out of each of its levels.

    Everything else stays FP32: the normalised image, the logarithms of the filterbank, the reduction, the head.

    Args:
        network: Made by ``fusion.fused_network``; not changed.

    Raises:
        EngineError: A backbone has a weight that FP16 cannot hold, or an operator that does not take FP16.
    """
    half = copied(network)
    nodes, initializers = half.graph.node, half.graph.initializer
    inside = tuple(f"{node.name.removeprefix(TO_HALF)}/" for node in nodes if node.name.startswith(TO_HALF))
    if not inside:
        return half
    for node in nodes:
        if node.name.startswith(TO_HALF) or FROM_HALF in node.name:
            precision = TensorProto.FLOAT16 if node.name.startswith(TO_HALF) else TensorProto.FLOAT
            node.CopyFrom(helper.make_node("Cast", node.input, node.output, node.name, to=precision))
        elif node.op_type == "Cast" and node.output[0].startswith(inside):
            _cast_to_half(node)
    # The scales of a Resize are FP32 whatever its input is.
    single = {name for node in nodes if node.op_type == "Resize" for name in node.input[1:3]}
    single.update(tensor.name for tensor in initializers if FROM_HALF in tensor.name)
    kernels = {node.input[1] for node in nodes if node.op_type == "Conv"}
    for tensor in initializers:
        if tensor.name.startswith(inside) and tensor.data_type == TensorProto.FLOAT and tensor.name not in single:
            values = _within_half(tensor)
            rounded = _rounded_kernel(values) if tensor.name in kernels else values.astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    try:
        onnx.checker.check_model(half, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(
            what=f"the backbone cannot be computed in half precision: {shorten(str(error), _REASON_WIDTH)}",
            remedy=_REMEDY,
        ) from error
    return half


def _cast_to_half(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def _within_half(tensor: onnx.TensorProto) -> NDArray[np.float32]:
    values: NDArray[np.float32] = numpy_helper.to_array(tensor)
    sizes = np.abs(values)
    largest = float(sizes.max(initial=0.0, where=sizes < np.inf))
    if largest > _LARGEST:
        raise EngineError(
            what=f"weight {tensor.name} is as large as {largest:.3g}; half precision ends at {_LARGEST:g}",
            remedy=_REMEDY,
        )
    return values


def _rounded_kernel(kernel: NDArray[np.float32]) -> NDArray[np.float16]:
    """Weights of a convolution, (out, in, ...), rounded to FP16 so that the sum of each kernel is kept.

    Many kernels respond to differences between neighbouring pixels: large weights that sum to zero. If each were
    rounded alone, they would respond to brightness as well.
    """
    weights = kernel.reshape(*kernel.shape[:2], -1).astype(np.float64)
    # The rounding error of a weight is added to the next smaller one, which has finer steps.
    order = np.argsort(-np.abs(weights), axis=2)
    ordered = np.take_along_axis(weights, order, axis=2)
    rounded = np.empty_like(ordered, np.float16)
    error = np.zeros(weights.shape[:2])
    for index in range(weights.shape[2]):
        rounded[..., index] = ordered[..., index] + error
        error += ordered[..., index] - rounded[..., index]
    result = np.empty_like(rounded)
    np.put_along_axis(result, order, rounded, axis=2)
    return result.reshape(kernel.shape)
