"""Flavours of the fused network, which a device derives from the one in the bundle: half precision, several frames.

TensorRT takes precision from the graph (strong typing), so what a GPU computes in is decided here and not by a builder.
"""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.errors import EngineError, SettingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Nodes whose names begin so do nothing in FP32: they are the borders of what may be computed in half precision. The
# border ``to_half/backbone1`` leads to tensors whose names all begin with ``backbone1/``.
TO_HALF = "to_half/"
FROM_HALF = "from_half/"

_LARGEST = float(np.finfo(np.float16).max)
_REASON_WIDTH = 250
_REFUSALS = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


def half_precision(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network with FP16 between its borders: one cast into each backbone, one out of each of its levels.

    All else stays FP32: the normalised picture, a backbone without borders, the reduction, the head.

    Args:
        network: Made by ``network.fused_network``; it is not changed.

    Raises:
        EngineError: A backbone has a weight that FP16 cannot hold, or an operator that does not take FP16.
    """
    half = _copy(network)
    nodes, initializers = half.graph.node, half.graph.initializer
    inside = tuple(f"{node.name.removeprefix(TO_HALF)}/" for node in nodes if node.name.startswith(TO_HALF))
    if not inside:
        return half
    for node in nodes:
        if node.name.startswith((TO_HALF, FROM_HALF)):
            precision = TensorProto.FLOAT16 if node.name.startswith(TO_HALF) else TensorProto.FLOAT
            node.CopyFrom(helper.make_node("Cast", node.input, node.output, node.name, to=precision))
        elif node.op_type == "Cast" and node.output[0].startswith(inside):
            _cast_to_half(node)
    # What the picture is resized by is a float whatever the picture is.
    scales = {name for node in nodes if node.op_type == "Resize" for name in node.input[1:3]}
    kernels = {node.input[1] for node in nodes if node.op_type == "Conv"}
    for tensor in initializers:
        if tensor.name.startswith(inside) and tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
            values = _within_half(tensor)
            rounded = _rounded_kernel(values) if tensor.name in kernels else values.astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    try:
        onnx.checker.check_model(half, full_check=True)
    except _REFUSALS as error:
        raise EngineError(
            what=f"the backbone cannot be computed in half precision: {_reason(error)}",
            remedy="build for FP32, or calibrate with another backbone",
        ) from error
    return half


def batched(network: onnx.ModelProto, frames: int) -> onnx.ModelProto:
    """The network for several frames at once: ``frame`` (n, height, width, 3), and n of each output.

    Args:
        network: Made by ``network.fused_network``, in any precision; it is not changed.
        frames: n, 1 or more.

    Raises:
        SettingError: Its detector or its backbone takes one frame at a time.
    """
    if frames < 1:
        raise SettingError(what=f"{frames} frames at once is too few", remedy="give 1 or more")
    several = _copy(network)
    graph = several.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = frames
    sizes = {node.input[3] for node in graph.node if node.op_type == "Resize" and len(node.input) > 3}  # noqa: PLR2004
    for tensor in graph.initializer:
        if tensor.name in sizes:
            tensor.CopyFrom(
                numpy_helper.from_array(np.array([frames, *numpy_helper.to_array(tensor)[1:]]), tensor.name)
            )
    try:
        onnx.checker.check_model(several, full_check=True)
    except _REFUSALS as error:
        raise SettingError(
            what=f"this network takes one frame at a time, not {frames}: {_reason(error)}",
            remedy="give 1; convolutional backbones with mean_shift, padim or gaussian take more",
        ) from error
    return several


def _copy(network: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    return copy


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
            what=f"weight {tensor.name} is as large as {largest:.3g}, half precision ends at {_LARGEST:g}",
            remedy="build for FP32, or calibrate with another backbone",
        )
    return values


def _rounded_kernel(kernel: NDArray[np.float32]) -> NDArray[np.float16]:
    """A convolution's weights, (out, in, ...), rounded so that the sum over each kernel stays.

    Many kernels see differences between neighbouring pixels: large weights whose sum is zero. Rounded one by one they
    would see the brightness, too.
    """
    weights = kernel.reshape(*kernel.shape[:2], -1).astype(np.float64)
    # What the rounding of a weight leaves is added to the next smaller one, whose own steps are finer.
    order = np.argsort(-np.abs(weights), axis=2)
    ordered = np.take_along_axis(weights, order, axis=2)
    rounded = np.empty_like(ordered, np.float16)
    left = np.zeros(weights.shape[:2])
    for place in range(weights.shape[2]):
        rounded[..., place] = ordered[..., place] + left
        left += ordered[..., place] - rounded[..., place]
    result = np.empty_like(rounded)
    np.put_along_axis(result, order, rounded, axis=2)
    return result.reshape(kernel.shape)


def _reason(error: Exception) -> str:
    return shorten(str(error), _REASON_WIDTH)
