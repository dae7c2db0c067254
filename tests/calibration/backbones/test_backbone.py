"""Backbones from ONNX files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.backbones.backbone import onnx_backbone
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import BackboneError
from calibration.network.fusion import feature_network, feature_shape
from tests.support.network_features import features_of
from tests.support.washers import washer

if TYPE_CHECKING:
    from pathlib import Path

FLOAT, DOUBLE, HALF, UINT8 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.UINT8
Shape = tuple[int | str, ...]
OPEN: Shape = ("n", 3, "height", "width")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def backbone_file(  # noqa: PLR0913 - one parameter for each thing that can be unusual
    folder: Path,
    nodes: list[onnx.NodeProto] | None = None,
    *,
    shape: Shape = OPEN,
    kinds: tuple[int, int] = (FLOAT, FLOAT),
    outputs: tuple[str, ...] = ("features",),
    opset: int = 17,
    constants: dict[str, Any] | None = None,
) -> Path:
    """A file with the input ``image``; by default an average of 8x8 pixels whose shape is left open."""
    default = [helper.make_node("AveragePool", ["image"], ["features"], kernel_shape=[8, 8], strides=[8, 8])]
    graph = helper.make_graph(
        nodes or default,
        "backbone",
        [helper.make_tensor_value_info("image", kinds[0], shape)],
        [helper.make_tensor_value_info(name, kinds[1], None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    path = folder / "backbone.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()
    )
    return path


@pytest.mark.parametrize("shape", [OPEN, (1, 3, 64, 96), ("n", 3, 64, 96), (0, 3, 64, "w")])
def test_open_dimensions_are_fixed(tmp_path: Path, shape: Shape) -> None:
    path = backbone_file(tmp_path, shape=shape)
    backbone = onnx_backbone(path, 64, 96, MEAN, STD)
    assert backbone.input_size == (64, 96)
    assert feature_shape(backbone) == (3, 8, 12)
    (graph,) = backbone.graphs
    assert (graph.mean, graph.std) == (MEAN, STD)
    assert (backbone.name, backbone.stages) == ("backbone.onnx", ())
    assert backbone.weights_sha256 == (hashlib.sha256(path.read_bytes()).hexdigest(),)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_older_and_newer_opsets_are_converted(tmp_path: Path, opset: int) -> None:
    model = onnx_backbone(backbone_file(tmp_path, opset=opset), 64, 64).graphs[0].model
    assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
    onnx.checker.check_model(model, full_check=True)


def test_mobilenet_with_a_symbolic_batch_becomes_a_feature_graph(weights: Path) -> None:
    backbone = onnx_backbone(weights / "mobilenet_v2_stride16.onnx", 224, 224)
    assert feature_shape(backbone) == (160, 14, 14)
    assert backbone.input_size == (224, 224)


@pytest.mark.slow
def test_mobilenet_gives_the_same_features_in_the_network_and_alone(weights: Path) -> None:
    path, picture = weights / "mobilenet_v2_stride16.onnx", washer(0, side=224)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = (picture[..., ::-1].transpose(2, 0, 1)[None] / 255).astype(np.float32)
    expected = session.run(None, {"image": image})[0][0]
    network = feature_network(onnx_backbone(path, 224, 224), MeanShift(averaging=1), divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        np.testing.assert_allclose(
            features_of(engine, picture), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
        )


def test_a_size_that_the_file_does_not_take_is_refused_with_both_sizes(weights: Path) -> None:
    with pytest.raises(BackboneError, match=r"(?s)takes \(0, 3, 224, 224\), not \(n, 3, 96, 128\).*--size"):
        onnx_backbone(weights / "mobilenet_v2_stride16.onnx", 96, 128)


@pytest.mark.parametrize("shape", [("n", 1, 64, 64), ("n", 64, 64, 3), (3, 64, 64), ()])
def test_an_input_that_is_not_an_image_is_refused(tmp_path: Path, shape: Shape) -> None:
    with pytest.raises(BackboneError, match=r"not \(n, 3, 64, 64\)"):
        onnx_backbone(backbone_file(tmp_path, shape=shape), 64, 64)


def test_two_outputs_are_refused_by_name(tmp_path: Path) -> None:
    nodes = [helper.make_node(operator, ["image"], [name]) for operator, name in (("Relu", "low"), ("Tanh", "high"))]
    path = backbone_file(tmp_path, nodes, outputs=("low", "high"))
    with pytest.raises(BackboneError, match=r"1 inputs and 2 outputs \(image, low, high\)"):
        onnx_backbone(path, 64, 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"hello world", "is not an ONNX file"), (bytes(64), "is not an ONNX file"), (b"", "has 0 inputs")],
)
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "backbone.onnx"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=said):
        onnx_backbone(path, 64, 64)


def test_a_truncated_file_is_refused(weights: Path, tmp_path: Path) -> None:
    content = (weights / "mobilenet_v2_stride16.onnx").read_bytes()
    path = tmp_path / "half.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BackboneError, match=r"half\.onnx"):
        onnx_backbone(path, 224, 224)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.onnx", tmp_path):
        with pytest.raises(BackboneError, match="cannot read the backbone"):
            onnx_backbone(path, 64, 64)


def test_an_output_that_is_not_a_feature_map_is_refused(tmp_path: Path) -> None:
    path = backbone_file(tmp_path, [helper.make_node("Flatten", ["image"], ["features"])])
    with pytest.raises(BackboneError, match=r"shape \(1, 12288\).* not a float32 feature map"):
        onnx_backbone(path, 64, 64)


@pytest.mark.parametrize("kinds", [(FLOAT, DOUBLE), (FLOAT, HALF), (HALF, FLOAT), (UINT8, FLOAT)])
def test_types_other_than_float32_are_refused(tmp_path: Path, kinds: tuple[int, int]) -> None:
    path = backbone_file(tmp_path, [helper.make_node("Cast", ["image"], ["features"], to=kinds[1])], kinds=kinds)
    with pytest.raises(BackboneError, match="float"):
        onnx_backbone(path, 64, 64)


def test_an_operator_that_onnx_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    path = backbone_file(tmp_path, [helper.make_node("Imagine", ["image"], ["features"])])
    with pytest.raises(BackboneError, match="Imagine"):
        onnx_backbone(path, 64, 64)


def test_a_file_for_batches_of_four_is_refused(tmp_path: Path) -> None:
    path = backbone_file(
        tmp_path,
        [helper.make_node("Reshape", ["image", "four"], ["features"])],
        shape=(4, 3, 64, 64),
        constants={"four": [4, 3, 64, 64]},
    )
    with pytest.raises(BackboneError, match="refuses"):
        onnx_backbone(path, 64, 64)
