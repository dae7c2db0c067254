"""Constants are folded, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.backbones.backbone import with_output_shapes
from calibration.backbones.constant_folding import absorb_paddings, fold, foldable_tensors
from calibration.onnx_graph import FLOAT

INTEGER = TensorProto.INT64
PICTURE = np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)


def model_of(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "folded",
        [helper.make_tensor_value_info("image", FLOAT, PICTURE.shape)],
        [helper.make_tensor_value_info("features", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def padded_by_shape() -> onnx.ModelProto:
    """A graph as exporters write it, with paddings computed from the shape."""
    return model_of(
        [
            helper.make_node("Relu", ["image"], ["relu"]),
            helper.make_node("Shape", ["relu"], ["shape"]),
            helper.make_node("Mul", ["shape", "none"], ["zeros"]),
            helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.array([0, 0, 1, 1]))),
            helper.make_node("Concat", ["zeros", "one"], ["pads"], axis=0),
            helper.make_node("Pad", ["relu", "pads", ""], ["padded"]),
            helper.make_node("Mul", ["padded", "factor"], ["features"]),
        ],
        none=np.zeros(4, np.int64),
        factor=np.float32(2.0),
        unused=np.float32(3.0),
    )


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    features: np.ndarray = session.run(None, {"image": PICTURE})[0]
    return features


def test_shapes_and_what_follows_from_them_become_constants() -> None:
    model = padded_by_shape()
    expected = run(model)
    known = with_output_shapes(model, "padded")
    assert [node.op_type for node in known.graph.node] == ["Relu", "Pad", "Mul"]
    assert {tensor.name for tensor in known.graph.initializer} == {"pads", "factor"}
    np.testing.assert_array_equal(run(known), expected)
    onnx.checker.check_model(known, full_check=True)


def test_only_constants_that_the_rest_reads_are_named() -> None:
    assert foldable_tensors(padded_by_shape().graph) == ["pads"]


def test_a_graph_without_constants_is_not_changed() -> None:
    model = model_of([helper.make_node("Relu", ["image"], ["features"])])
    before = model.SerializeToString()
    assert foldable_tensors(model.graph) == []
    fold(model.graph, {})
    assert model.SerializeToString() == before


def test_graphs_with_branches_are_not_folded() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["taken"])],
        "branch",
        [],
        [helper.make_tensor_value_info("taken", 1, None)],
    )
    model = model_of(
        [
            helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch),
            helper.make_node("Sub", ["image", "chosen"], ["features"]),
        ],
        yes=np.bool_(1),
    )
    assert foldable_tensors(model.graph) == []
    np.testing.assert_array_equal(run(with_output_shapes(model, "branches")), np.minimum(PICTURE, 0))


@pytest.mark.parametrize("picture", [PICTURE, -PICTURE], ids=["one", "another"])
def test_the_folded_graph_depends_on_the_image_as_before(picture: np.ndarray) -> None:
    folded = with_output_shapes(padded_by_shape(), "padded")
    session = ort.InferenceSession(folded.SerializeToString(), providers=["CPUExecutionProvider"])
    whole = 2 * np.pad(np.maximum(picture, 0), ((0, 0), (0, 0), (0, 1), (0, 1)))
    np.testing.assert_array_equal(session.run(None, {"image": picture})[0], whole)


def padded_convolution(**changes: object) -> onnx.ModelProto:
    """A padding in front of two convolutions, one of which pads as well."""
    given: dict[str, object] = {"pads": [0, 0, 1, 0, 0, 0, 2, 1], "value": np.float32(0), "mode": "constant", **changes}
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 3)).astype(np.float32)
    return model_of(
        [
            helper.make_node("Pad", ["image", "pads", "value"], ["padded"], mode=given["mode"]),
            helper.make_node("Conv", ["padded", "kernel"], ["one"], pads=[1, 1, 0, 0]),
            helper.make_node("Conv", ["padded", "kernel"], ["other"]),
            helper.make_node("Slice", ["one", "start", "end", "axes"], ["cut"]),
            helper.make_node("Add", ["cut", str(given.get("adds", "other"))], ["features"]),
        ],
        pads=np.array(given["pads"]),
        value=given["value"],
        kernel=kernel,
        start=np.array([1, 1]),
        end=np.array([99, 99]),
        axes=np.array([2, 3]),
    )


def test_a_padding_with_zeros_is_left_to_the_convolutions_that_read_it() -> None:
    model = padded_convolution()
    expected = run(model)
    absorb_paddings(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Conv", "Slice", "Add"]
    assert {tensor.name for tensor in model.graph.initializer} == {"kernel", "start", "end", "axes"}
    np.testing.assert_array_equal(run(model), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "reflect"},
        {"value": np.float32(1)},
        {"pads": [0, 0, 0, 0, 0, 0, 0, -1]},
        {"pads": [0, 1, 0, 0, 0, -1, 0, 0]},
        {"adds": "padded"},
    ],
    ids=["reflected", "ones", "cropped", "channels", "read by others"],
)
def test_any_other_padding_stays(changes: dict[str, object]) -> None:
    model = padded_convolution(**changes)
    before = model.SerializeToString()
    absorb_paddings(model.graph)
    assert model.SerializeToString() == before


def test_a_padded_image_that_is_a_level_stays() -> None:
    model = padded_convolution()
    model.graph.output.add().name = "padded"
    before = model.SerializeToString()
    absorb_paddings(model.graph)
    assert model.SerializeToString() == before
