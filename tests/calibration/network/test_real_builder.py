"""NVIDIA's own parser and builder take every network: all detectors with all their options, all kinds of backbones.

Families of timm and the presets are in ``test_timm_families``, real weights in ``test_half_precision``: both have
exported them anyway.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import TYPE_CHECKING, get_args, get_type_hints

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.backbones.backbone import filterbank_backbone, onnx_backbone
from calibration.detectors import patch_svdd
from calibration.detectors.mean_shift import MeanShift
from calibration.errors import EngineError
from calibration.network.fusion import fused_network
from calibration.network.half_precision import half_precision
from calibration.onnx_graph import FLOAT, FROM_HALF, TO_HALF
from calibration.workstation.cli.detector_options import _DETECTORS, parse_detector
from calibration.workstation.fit.raw_patches import raw_patches
from tests.support.levels import two_fields, two_levels
from tests.support.networks import network_of
from tests.support.random_backbone import random_backbone
from tests.support.real_tensorrt import Parsed, built, prove
from tests.support.washers import SIDE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.backbones.backbone import Backbone

HOTELLING = "hotelling:patch_px=16,region_px=32"
# As --detector takes them.
DETECTORS = (
    "mean_shift",
    "mean_shift:averaging=1,pooling_order=inf",
    "mean_shift:patch=2,dimensions=12",
    "mean_shift:modes=2",
    "mean_shift:location=shared",
    "mean_shift:location=shared,modes=3",
    "mean_shift:location=global",
    "mean_shift:location=global,modes=2",
    HOTELLING,
    f"{HOTELLING},modes=2",
    f"{HOTELLING},location=shared",
    f"{HOTELLING},location=shared,modes=3",
    f"{HOTELLING},location=global",
    "padim",
    "padim:dimensions=5",
    "padim:smoothing=4",
    "gaussian",
    "gaussian:components=pca",
    "gaussian:components=npca,distance=sed",
    "gaussian:distance=l2",
    "patchcore",
    "patchcore:coreset=0.2,neighbours=3,aggregation=1",
    "patchcore:stride=2",
    "patchcore:dimensions=8,smoothing=4",
    "patchcore:stride=2,smoothing=4",
    "patchcore:banks=each",
    "patchcore:banks=each,stride=2,dimensions=8,smoothing=4",
    "patch_svdd:entries=8",
    "patch_svdd:entries=40",  # more than are searched at once, see below
    "patch_svdd:encoders=raw,entries=8",
    "patch_svdd:encoders=paper,entries=8",
)
# What changes numbers alone, and no node.
NUMBERS = {
    "mean_shift": {"alpha", "ridge"},
    "gaussian": {"retained_variance"},
    "patchcore": {"candidates"},
    "patch_svdd": {"steps", "batch", "svdd_weight", "candidates"},
}


@pytest.fixture(autouse=True)
def searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank of 40 patches is searched in parts, as one of 40,000 is."""
    monkeypatch.setattr(patch_svdd, "_SEARCHED", 16)


def backbone_for(spec: str) -> Backbone:
    """Small, with levels that the detector takes."""
    if spec.startswith("patch_svdd"):
        return raw_patches(SIDE, SIDE) if "raw" in spec else two_fields()
    return two_levels() + random_backbone() if "each" in spec else two_levels()


def of_spec(spec: str) -> onnx.ModelProto:
    return network_of(backbone_for(spec), parse_detector(spec))


@pytest.mark.parametrize("spec", DETECTORS)
def test_every_detector_is_built(spec: str, request: pytest.FixtureRequest) -> None:
    prove(spec, of_spec(spec), request)


def onnx_file(folder: Path) -> Backbone:
    """As another exporter writes it: for any number of images of any size, and an older opset."""
    model = random_backbone().graphs[0].model
    for info in (*model.graph.input, *model.graph.output):
        for axis in (0, 2, 3):
            info.type.tensor_type.shape.dim[axis].dim_param = f"n{axis}"
    model.opset_import[0].version = 13
    onnx.save(model, folder / "any.onnx")
    return onnx_backbone(folder / "any.onnx", SIDE, SIDE)


BACKBONES: dict[str, Callable[[Path], Backbone]] = {
    "filterbank": lambda _: filterbank_backbone(SIDE, SIDE),
    "an ONNX file": onnx_file,
    "filterbank+two levels+an ONNX file": lambda folder: (
        filterbank_backbone(SIDE, SIDE) + two_levels() + onnx_file(folder)
    ),
}


@pytest.mark.parametrize("divide_brightness", [False, True], ids=["", "brightness divided"])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_kind_of_backbone_is_built(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, *, divide_brightness: bool
) -> None:
    network = network_of(BACKBONES[name](tmp_path), MeanShift(), divide_brightness=divide_brightness)
    prove(f"{name}, brightness divided" if divide_brightness else name, network, request)


def test_no_detector_and_no_option_is_left_out() -> None:
    given = [parse_detector(spec) for spec in DETECTORS]
    for name, detector in _DETECTORS.items():
        hints = get_type_hints(detector)
        for field in fields(detector):
            if field.name not in NUMBERS.get(name, set()):
                values = {getattr(each, field.name) for each in given if each.name == name}
                assert values - {field.default}, f"{name}:{field.name}"
                assert values >= set(get_args(hints[field.name])) - {int, type(None)}, f"{name}:{field.name}"


def test_nothing_else_changes_the_graph() -> None:
    """Alignment, ignored areas and zones change frames before the network sees them."""
    assert set(inspect.signature(fused_network).parameters) == {"backbone", "detector", "head", "divide_brightness"}


def planted(network: onnx.ModelProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """The network with nodes before its score: from ``score``, ``map`` and more to ``planted``, which is added."""
    graph = network.graph
    (last,) = (node for node in graph.node if "score" in node.output)
    last.output[0] = "before"
    graph.node.extend([*nodes, helper.make_node("Add", ["before", "planted"], ["score"], "planted/add")])
    return network


def argmax_of_a_vector(network: onnx.ModelProto) -> None:
    """As PatchCore's head once had it."""
    network.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "planted.shape"))
    planted(
        network,
        helper.make_node("Reshape", ["map", "planted.shape"], ["vector"], "planted/reshape"),
        helper.make_node("ArgMax", ["vector"], ["place"], "planted/argmax", axis=0, keepdims=1),
        helper.make_node("Cast", ["place"], ["planted"], "planted/cast", to=FLOAT),
    )


def unsupported_operator(network: onnx.ModelProto) -> None:
    planted(network, helper.make_node("Det", ["map"], ["planted"], "planted/det"))


def unhalved(network: onnx.ModelProto, border: str) -> None:
    """A border that casts to the other precision."""
    (cast,) = (node for node in network.graph.node if node.name == border)
    other = TensorProto.FLOAT if border.startswith(TO_HALF) else TensorProto.FLOAT16
    cast.CopyFrom(helper.make_node("Cast", cast.input, cast.output, cast.name, to=other))


def half_in_the_head(network: onnx.ModelProto) -> None:
    planted(
        network,
        helper.make_node("Cast", ["before"], ["half"], "planted/to", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["planted"], "planted/from", to=FLOAT),
    )


PLANTED: dict[str, tuple[Callable[[onnx.ModelProto], None], type[Exception], str]] = {
    "ArgMax of a vector": (
        argmax_of_a_vector,
        EngineError,
        r"cannot read the network: node planted/argmax \(ArgMax\): .*at least 2 dimensions.*\n *calibrate again",
    ),
    "unsupported operator": (unsupported_operator, EngineError, r"cannot read the network: node planted/det \(Det\)"),
    "cast that is missing": (lambda network: unhalved(network, f"{TO_HALF}backbone"), EngineError, "cannot read"),
    "cast that is too late": (lambda network: unhalved(network, f"{FROM_HALF}backbone/0"), EngineError, "cannot read"),
    "casts in the head": (half_in_the_head, AssertionError, r"precision changes in planted/to, planted/from"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_out(name: str) -> None:
    plant, error, words = PLANTED[name]
    network = half_precision(of_spec("mean_shift"))
    built(network)
    plant(network)
    with pytest.raises(error) as raised:
        built(network)
    assert re.search(words, str(raised.value))


def test_weights_that_the_parser_does_not_name_are_found_out() -> None:
    network = of_spec("mean_shift:location=shared")
    network.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "head.unused"))
    assert Parsed(network).wrong() == ["no weights head.unused"]
