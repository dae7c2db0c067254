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
from calibration.onnx_graph import external_tensors
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


def _with_external_weights(folder: Path, location: str = "weights.data") -> Path:
    folder.mkdir()
    weights = np.random.default_rng(0).normal(0, 0.3, (8, 3, 16, 16)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "w"], ["features"], strides=[16, 16])
    path = backbone_file(folder, [node], constants={"w": weights})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_another_file_are_taken_into_the_network_wherever_the_command_runs(tmp_path: Path) -> None:
    path = _with_external_weights(tmp_path / "models")
    backbone = onnx_backbone(path, 64, 64)
    network = feature_network(backbone, MeanShift(), divide_brightness=False)
    assert not external_tensors(network)
    files = (path, path.with_name("weights.data"))
    assert backbone.weights_sha256 == tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        assert engine.reduced(washer(0)).any()


@pytest.mark.parametrize("location", ["gone.data", "../weights.data", "/etc/hostname"])
def test_weights_that_are_not_in_the_folder_of_the_model_are_refused_by_name(tmp_path: Path, location: str) -> None:
    path = _with_external_weights(tmp_path / "models", location)
    (tmp_path / "weights.data").write_bytes(path.with_name("weights.data").read_bytes())
    with pytest.raises(BackboneError, match=f"(?s)weights of .*{location}.*export again into backbone.onnx alone"):
        onnx_backbone(path, 64, 64)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((1, 64, 96, 3), "channels come last .*--inputs-as-nchw"),
        (("n", "height", "width", 3), "channels come last"),
        ((1, 64, 96, 1), "channels come last"),
        ((1, 1, 64, 96), "grey"),
        ((1, 4, 64, 96), "4 channels: export it for the three of RGB"),
        ((1, 3, 224, 128), "--size 224x128"),
        ((1, 3, "height", 128), "--size 64x128"),
        ((3, 64, 96), "four dimensions"),
    ],
)
def test_the_remedy_names_what_does_not_fit(tmp_path: Path, shape: Shape, remedy: str) -> None:
    with pytest.raises(BackboneError, match=f"(?s)takes .* not \\(n, 3, 64, 96\\).*{remedy}"):
        onnx_backbone(backbone_file(tmp_path, shape=shape), 64, 96)


def test_an_input_without_a_written_shape_is_taken_if_it_runs(tmp_path: Path) -> None:
    path = backbone_file(tmp_path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())
    assert feature_shape(onnx_backbone(path, 64, 96)) == (3, 8, 12)


@pytest.mark.parametrize(
    ("shape", "remedy"), [(OPEN, "leaves its size open, but cannot take 64x64"), ((4, 3, 64, 64), "4 images at once")]
)
def test_a_model_that_cannot_run_at_this_size_gets_its_own_remedy(tmp_path: Path, shape: Shape, remedy: str) -> None:
    nodes = [helper.make_node("Reshape", ["image", "fixed"], ["features"])]
    path = backbone_file(tmp_path, nodes, shape=shape, constants={"fixed": [4, 3, 64, 64]})
    with pytest.raises(BackboneError, match=remedy):
        onnx_backbone(path, 64, 64)


def test_several_inputs_are_named_and_are_to_become_constants(tmp_path: Path) -> None:
    path = backbone_file(tmp_path)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("training", TensorProto.BOOL, ()))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BackboneError, match=r"(?s)2 inputs .*image, training.*make the other inputs constants"):
        onnx_backbone(path, 64, 64)
