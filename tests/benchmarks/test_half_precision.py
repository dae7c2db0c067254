from __future__ import annotations

from typing import TYPE_CHECKING

import half_precision
import mtd
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from fp16 import NodeByNode
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import roc_auc_score

from calibration.backbones.backbone import filterbank_backbone
from calibration.backbones.filterbank import gabor_bank
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network
from calibration.network.half_precision import half_precision as half_precision_of
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import Detector

CALIBRATING = 150
EVERY = 6  # of the test tiles


@pytest.fixture(scope="module")
def lite0(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    del data, weights  # where they are missing, these tests are skipped
    pytest.importorskip("timm", reason="Lite0 comes from timm: pip install --editable '.[fit]'")
    settings = Settings(Preprocess(mtd.SIDE, mtd.SIDE), threads=1)
    path = tmp_path_factory.mktemp("half") / "bundle"
    return mtd.fit(mtd.backbone_of("lite0"), mtd.split(images=CALIBRATING).learnt, settings, path)


@pytest.mark.slow
def test_scores_in_half_precision_are_within_a_hundredth_and_find_as_much(lite0: Bundle) -> None:
    images = mtd.split().test[::EVERY]
    scored = half_precision.scored(onnx.load(lite0.network), half_precision.frames_of(images))
    defective = [image.label != "good" for image in images]
    assert 0 < sum(defective) < len(defective)
    assert np.percentile(scored.deviations, 99) < 0.01
    assert scored.deviations.max() < 0.015  # that of a single tile in a thousand (README.md)
    assert scored.deviations.max() > 1e-4  # the rounding took place
    assert abs(roc_auc_score(defective, scored.half) - roc_auc_score(defective, scored.single)) < 0.002


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "learnt", "tested"),
    [
        pytest.param(MeanShift(), "mtd/MT_Free/Imgs/*.jpg", "mtd/*/Imgs/*.jpg", id="grey: channels without variance"),
        pytest.param(Gaussian(), "metal_plate/train/good/*", "metal_plate/test/*/*", id="dark: small responses"),
    ],
)
def test_the_filterbank_in_half_precision_keeps_the_scores(
    detector: Detector, learnt: str, tested: str, data: Path, tmp_path: Path
) -> None:
    settings = Settings(Preprocess(mtd.SIDE, mtd.SIDE), detector, threads=1)
    good = sorted(data.glob(learnt))[:20]
    bundle = mtd.fit(mtd.backbone_of("filterbank"), good, settings, tmp_path / "bundle")
    paths = sorted(set(data.glob(tested)) - set(good))
    frames = [settings.preprocess(read_image(path)) for path in paths[:: len(paths) // 8]]
    deviations = half_precision.scored(onnx.load(bundle.network), frames).deviations
    assert 1e-5 < deviations.max() < 0.02


def test_the_filterbank_in_half_precision_holds_a_black_frame_with_a_few_white_pixels() -> None:
    """Divided by its own brightness it has the largest values that there are."""
    network = feature_network(filterbank_backbone(mtd.SIDE, mtd.SIDE), MeanShift(), divide_brightness=True)
    frame = np.zeros((1, mtd.SIDE, mtd.SIDE, 3), np.uint8)
    even = gabor_bank()[0, 0] > 0
    frame[0, 100:109, 100:109][even] = 255
    single, half = (NodeByNode(each)(frame)["features"] for each in (network, half_precision_of(network)))
    np.testing.assert_allclose(half, single, atol=0.05)


def test_frames_that_saturate_have_finite_scores_far_above_the_threshold(lite0: Bundle) -> None:
    scored = half_precision.scored(onnx.load(lite0.network), list(half_precision.extremes(lite0).values()))
    assert np.isfinite(scored.half).all()
    assert (scored.half > 2 * lite0.working_point.threshold).all()
    assert scored.deviations.max() < 0.02


def test_node_by_node_in_single_precision_is_the_network_as_a_whole(lite0: Bundle) -> None:
    network, (frame,) = onnx.load(lite0.network), half_precision.frames_of(mtd.split().test[:1])
    outputs = NodeByNode(network)(frame[None])
    session = ort.InferenceSession(lite0.network, providers=["CPUExecutionProvider"])
    names = [output.name for output in network.graph.output]
    for name, expected in zip(names, session.run(names, {"frame": frame[None]}), strict=True):
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=name)


def test_node_by_node_rounds_between_nodes() -> None:
    constants = {"part": 0.4, "whole": 1024.0}  # FP16 has steps of 1 there
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Add", ["half", "part"], ["sum"]),
            helper.make_node("Sub", ["sum", "whole"], ["rest"]),
            helper.make_node("Cast", ["rest"], ["score"], to=TensorProto.FLOAT),
        ],
        "steps",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, (1,))],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, (1,))],
        [numpy_helper.from_array(np.array([value], np.float16), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    frame = np.array([1024.0], np.float32)
    assert NodeByNode(model)(frame)["score"] == 0.0
