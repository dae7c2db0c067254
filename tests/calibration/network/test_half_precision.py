"""Structure of the half-precision network, for every detector on every kind of backbone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.backbones.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.detectors.gaussian import Gaussian, GaussianHead
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.errors import EngineError
from calibration.network.fusion import feature_network, fused_network
from calibration.network.half_precision import half_precision
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder
from tests.support.levels import two_levels
from tests.support.networks import network_of
from tests.support.real_tensorrt import prove
from tests.support.washers import SIDE

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.detectors.contract import Detector

FLOAT16 = TensorProto.FLOAT16
DETECTORS: dict[str, Detector] = {
    "mean_shift": MeanShift(),
    "mean_shift, largest": MeanShift(pooling_order=np.inf),
    "mean_shift, shared": MeanShift(location="shared"),
    "mean_shift, global": MeanShift(location="global"),
    "mean_shift, projected patches": MeanShift(patch=2, dimensions=12),
    "mean_shift, two modes": MeanShift(modes=2, dimensions=12),
    "mean_shift, two modes, shared": MeanShift(modes=2, location="shared"),
    "padim": Padim(dimensions=20),
    "gaussian": Gaussian(),
    "gaussian, npca": Gaussian("npca"),
    "patchcore": PatchCore(),
}
FILTERBANK_BORDERS = ("brightness", "energies", "contrasts")
BACKBONES = ("filterbank", "two levels", "lite0", "mobilenet", "lite0+filterbank")


@cache
def backbone_of(source: str, weights: Path | None) -> Backbone:
    """Small if possible."""
    if source == "filterbank":
        return filterbank_backbone(SIDE, SIDE)
    if source == "two levels":
        return two_levels()
    assert weights is not None
    if source == "mobilenet":
        return onnx_backbone(weights / "mobilenet_v2_stride16.onnx", 224, 224)
    from calibration.workstation.torch_models.timm_backbone import timm_backbone  # noqa: PLC0415 - torch may be absent

    file = weights / "tf_efficientnet_lite0.safetensors"
    lite0 = timm_backbone("tf_efficientnet_lite0", ("blocks.3", "blocks.4"), file, SIDE, SIDE)
    return lite0 + filterbank_backbone(SIDE, SIDE) if "+" in source else lite0


def fitted_network(source: str, kind: str, weights: Path | None = None) -> onnx.ModelProto:
    """A fused network whose head was fitted to noise."""
    return network_of(backbone_of(source, weights), DETECTORS[kind])


@dataclass(frozen=True)
class Variants:
    """The network of the bundle and its half-precision variant."""

    source: str
    single: onnx.ModelProto
    half: onnx.ModelProto


@pytest.fixture(scope="module", params=[(source, kind) for source in BACKBONES for kind in DETECTORS], ids=", ".join)
def variants(request: pytest.FixtureRequest) -> Variants:
    """Every detector on every backbone."""
    source, kind = request.param
    network = fitted_network(source, kind, weights_for(source, request))
    return Variants(source, network, half_precision(network))


def weights_for(source: str, request: pytest.FixtureRequest) -> Path | None:
    """The weights folder if the backbone needs it; the test is skipped without it."""
    if source in {"filterbank", "two levels"}:
        return None
    weights: Path = request.getfixturevalue("weights")
    if "lite0" in source:
        pytest.importorskip("timm", reason="Lite0 comes from timm: pip install --editable '.[fit]'")
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("source", ["lite0", "mobilenet", "lite0+filterbank"])
def test_nvidia_builds_backbones_with_real_weights(source: str, request: pytest.FixtureRequest) -> None:
    prove(
        f"{source}, real weights", fitted_network(source, "mean_shift, shared", weights_for(source, request)), request
    )


def precisions(network: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(network, check_type=True, strict_mode=True).graph
    values = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return {**values, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def shapes(network: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*network.graph.input, *network.graph.output)
    }


def casts(network: onnx.ModelProto) -> list[tuple[str, int]]:
    """Output and precision of each cast."""
    return [(node.output[0], node.attribute[0].i) for node in network.graph.node if node.op_type == "Cast"]


@pytest.mark.slow
def test_there_is_one_cast_into_each_backbone_and_one_out_of_each_level(variants: Variants) -> None:
    ((frame, precision),) = casts(variants.single)
    assert precision == FLOAT
    found = casts(variants.half)
    assert found[0] == (frame, FLOAT)
    assert [name for name, precision in found[1:] if precision == FLOAT16] == [
        f"{name}/image" for name in names(variants)
    ]
    levels = [node.output[0] for node in variants.single.graph.node if node.name.startswith("from_half/")]
    assert len(levels) == {"filterbank": 1, "mobilenet": 1, "lite0+filterbank": 3}.get(variants.source, 2)
    inside = [f"{names(variants)[-1]}/from_half/{name}" for name in FILTERBANK_BORDERS]
    expected = levels + inside if "filterbank" in variants.source else levels
    assert sorted(name for name, precision in found[1:] if precision == FLOAT) == sorted(expected)


def names(variants: Variants) -> list[str]:
    """Prefixes of the backbones' layers in the graph."""
    return ["backbone", "backbone1"][: 1 + variants.source.count("+")]


@pytest.mark.slow
def test_only_the_nodes_between_the_borders_have_half_precision(variants: Variants) -> None:
    before, after = precisions(variants.single), precisions(variants.half)
    assert after.keys() == before.keys()
    assert FLOAT16 not in before.values()
    assert FLOAT16 in after.values()
    behind = behind_borders(variants.single)
    logarithms = [node.output[0] for node in variants.single.graph.node if node.op_type == "Log"]
    assert len(logarithms) == (2 if "filterbank" in variants.source else 0)
    assert behind.issuperset(logarithms)
    for name, precision in before.items():
        half = precision == FLOAT and name.startswith(("backbone/", "backbone1/")) and name not in behind
        assert after[name] == (FLOAT16 if half else precision), name


def behind_borders(network: onnx.ModelProto) -> set[str]:
    """What lies behind the borders inside a backbone, with its constants."""
    behind = {node.output[0] for node in network.graph.node if "/from_half/" in node.output[0]}
    for node in network.graph.node:
        if not behind.isdisjoint(node.input):
            behind.update(node.input, node.output)
    return behind


@pytest.mark.slow
def test_the_head_keeps_its_names_and_single_precision(variants: Variants) -> None:
    single = {tensor.name: tensor for tensor in variants.single.graph.initializer}
    heads = {tensor.name: tensor for tensor in variants.half.graph.initializer if tensor.name.startswith("head.")}
    assert {"head.mean", "head.mean.0"} & heads.keys()
    assert {"head.whitening", "head.whitening.0", "head.bank"} & heads.keys()
    for name, tensor in heads.items():
        assert tensor == single[name]
        assert tensor.data_type == (TensorProto.INT64 if name == "head.neighbours" else FLOAT)
    names = [tensor.name for tensor in variants.half.graph.initializer]
    assert len(set(names)) == len(names)
    assert heads.keys() <= {name for node in variants.half.graph.node for name in node.input}


def test_the_mean_is_subtracted_before_anything_is_multiplied(variants: Variants) -> None:
    readers = [node for node in variants.half.graph.node if any(name.startswith("head.") for name in node.input)]
    assert readers[0].op_type == "Sub"
    assert readers[0].input[1].startswith("head.mean")
    assert {node.op_type for node in readers if any(name.startswith("head.mean") for name in node.input)} == {"Sub"}


def test_inputs_and_outputs_are_those_of_the_bundle(variants: Variants) -> None:
    half, single = variants.half, variants.single
    assert list(half.graph.input) == list(single.graph.input)
    assert list(half.graph.output) == list(single.graph.output)
    assert {output.type.tensor_type.elem_type for output in half.graph.output} == {FLOAT}
    assert set(shapes(half)) == {"frame", "score", "map", "features"}
    assert (half.opset_import, half.ir_version) == (single.opset_import, single.ir_version)


def test_backbones_compute_only_what_depends_on_the_image(variants: Variants) -> None:
    varying = {"frame"}
    for node in variants.single.graph.node:
        if varying.isdisjoint(node.input):
            assert "head.bank" in node.input or not node.output[0].startswith("backbone"), node.name
        varying.update(node.output)


def test_each_backbone_has_its_own_borders() -> None:
    backbone = filterbank_backbone(SIDE, SIDE) + two_levels() + two_levels()
    half = half_precision(feature_network(backbone, Gaussian(), divide_brightness=False))
    levels = ["backbone.level0", *(f"backbone{part}.level{level}" for part in (1, 2) for level in (0, 1))]
    leaving = levels + [f"backbone/from_half/{name}" for name in FILTERBANK_BORDERS]
    entering = [f"backbone{part}/image" for part in ("", 1, 2)]
    expected = [(name, FLOAT) for name in leaving] + [(name, FLOAT16) for name in entering]
    assert sorted(casts(half)[1:]) == sorted(expected)
    after = precisions(half)
    for part in ("backbone1/", "backbone2/"):
        assert {after[name] for name in after if name.startswith(part)} == {FLOAT16}


def test_a_network_without_borders_stays_as_it_is() -> None:
    """Bundles of version 0.1.0 have such a filterbank."""
    network = fitted_network("filterbank", "mean_shift")
    for node in network.graph.node:
        node.name = node.name.replace("_half/", "/")
    assert half_precision(network) == network


def test_the_network_of_the_bundle_is_not_changed() -> None:
    network = fitted_network("two levels", "mean_shift")
    before = network.SerializeToString()
    half_precision(network)
    assert network.SerializeToString() == before


def test_half_the_weights_are_half_as_large(weights: Path) -> None:
    pytest.importorskip("timm", reason="Lite0 comes from timm: pip install --editable '.[fit]'")
    network = fitted_network("lite0", "gaussian", weights)
    sizes = [
        sum(len(tensor.raw_data) for tensor in model.graph.initializer if tensor.name.startswith("backbone/"))
        for model in (network, half_precision(network))
    ]
    assert sizes[1] < 0.51 * sizes[0]


def one_layer(operator: str, weights: list[float], **attributes: int) -> onnx.ModelProto:
    """A fused network whose backbone is one node, of the image and its weights."""
    graph = GraphBuilder("layer")
    constants = [graph.constant("weights", np.array(weights, np.float32))] if weights else []
    graph.add(operator, "image", *constants, output="features", **attributes)
    model = graph.model({"image": (FLOAT, (1, 3, 4, 6))}, {"features": (FLOAT, (1, 3, 4, 6))})
    backbone, detector = Backbone((FeatureGraph(model),), "layer"), Gaussian()
    head = GaussianHead((np.zeros(3, np.float32),), (np.eye(3, dtype=np.float32),))
    return fused_network(backbone, detector, head, divide_brightness=False)


def test_a_weight_that_half_precision_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match=r"weight backbone/weights is as large as 6\.6e\+04.*65504"):
        half_precision(one_layer("Mul", [66000.0]))


def test_a_rounded_kernel_keeps_its_sum_and_nearly_every_weight() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, 3, 3, 3)).astype(np.float32) * np.float32(50.0)
    weights[0] -= weights[0].mean(axis=(1, 2), keepdims=True)
    graph = GraphBuilder("kernels")
    graph.add("Conv", "image", graph.constant("weights", weights), pads=[1] * 4, output="features")
    model = graph.model({"image": (FLOAT, (1, 3, 4, 6))}, {"features": (FLOAT, (1, 3, 4, 6))})
    network = feature_network(Backbone((FeatureGraph(model),), "kernels"), Gaussian(), divide_brightness=False)
    (tensor,) = (each for each in half_precision(network).graph.initializer if each.name == "backbone/weights")
    half = numpy_helper.to_array(tensor)
    assert half.dtype == np.float16
    sums, plain = (each.astype(np.float64).sum(axis=(2, 3)) for each in (half, weights.astype(np.float16)))
    exact = weights.astype(np.float64).sum(axis=(2, 3))
    assert np.abs(sums - exact).max() < 0.1 * np.abs(plain - exact).max()
    np.testing.assert_allclose(half, weights, rtol=0, atol=2**-10 * np.abs(weights).max())


def test_infinite_weights_stay_infinite() -> None:
    half = half_precision(one_layer("Max", [-np.inf]))
    (weights,) = (tensor for tensor in half.graph.initializer if tensor.name == "backbone/weights")
    assert numpy_helper.to_array(weights).tolist() == [-np.inf]


def test_an_operator_without_half_precision_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match=r"(?s)cannot be computed in half precision.*Celu.*FP32"):
        half_precision(one_layer("Celu", []))


def test_a_cast_inside_the_backbone_is_changed_to_half_precision() -> None:
    half = half_precision(one_layer("Cast", [], to=FLOAT))
    assert precisions(half)["backbone/features"] == FLOAT16


def test_scales_of_a_resize_stay_single_precision() -> None:
    graph = GraphBuilder("resized")
    small = graph.add("AveragePool", "image", kernel_shape=[2, 2], strides=[2, 2])
    scales = graph.constant("scales", np.array([1, 1, 2, 2], np.float32))
    graph.add("Resize", small, "", scales, mode="linear", output="features")
    model = graph.model({"image": (FLOAT, (1, 3, 4, 6))}, {"features": (FLOAT, (1, 3, 4, 6))})
    network = feature_network(Backbone((FeatureGraph(model),), "resized"), Gaussian(), divide_brightness=False)
    after = precisions(half_precision(network))
    assert after["backbone/scales"] == FLOAT
    assert after["backbone/features"] == FLOAT16
    assert helper.tensor_dtype_to_np_dtype(after["features"]) == np.float32
