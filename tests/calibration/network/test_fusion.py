"""The fused network agrees with the formulas, written as NumPy loops in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from calibration.backbones.backbone import Backbone, filterbank_backbone
from calibration.backbones.filterbank import filterbank
from calibration.detectors import fold_moments
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import EngineError
from calibration.network.fusion import feature_network, fused_network
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder
from calibration.statistics.moments import Moments
from calibration.statistics.scores import generalised_mean as generalised_mean_in_numpy
from tests.support.network_features import features_of as network_features
from tests.support.oracles import NaiveDistance, generalised_mean, naive_pool
from tests.support.random_backbone import random_backbone
from tests.support.washers import SIDE, washer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

DETECTORS = {
    "local": MeanShift(alpha=0.1, averaging=2),
    "local, nearly PaDiM": MeanShift(alpha=0.02, averaging=1),
    "local mean, shared covariance": MeanShift(alpha=1.0, averaging=3),
    "the largest alone": MeanShift(pooling_order=np.inf),
    "the mean alone": MeanShift(pooling_order=1.0),
    "shared": MeanShift(averaging=2, location="shared"),
    "shared, no averaging": MeanShift(averaging=1, location="shared"),
}
BRIGHTNESS = pytest.mark.parametrize("divide_brightness", [False, True], ids=["as it is", "brightness divided"])


def no_backbone(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Backbone:
    """A backbone whose features are the normalised image itself."""
    graph = GraphBuilder("nothing")
    graph.add("Identity", "image", output="features")
    model = graph.model({"image": (FLOAT, (1, 3, 4, 6))}, {"features": (FLOAT, (1, 3, 4, 6))})
    return Backbone((FeatureGraph(model, mean, std),), "nothing")


def features_of(backbone: Backbone, pictures: list[Image], *, divide_brightness: bool) -> list[NDArray[np.float32]]:
    network = feature_network(backbone, MeanShift(averaging=1), divide_brightness=divide_brightness)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        return [network_features(engine, picture) for picture in pictures]


@pytest.mark.parametrize("backbone", ["random", "filterbank"])
@pytest.mark.parametrize("kind", DETECTORS)
@BRIGHTNESS
def test_scores_agree_with_the_formulas(backbone: str, kind: str, *, divide_brightness: bool) -> None:
    detector = DETECTORS[kind]
    source = random_backbone() if backbone == "random" else filterbank_backbone(SIDE, SIDE)
    pictures = [washer(number) for number in range(30)]
    pooled = np.stack(
        [
            naive_pool(features, detector.averaging)
            for features in features_of(source, pictures, divide_brightness=divide_brightness)
        ]
    )
    vectors = fold_moments.across_locations if detector.location == "shared" else fold_moments.by_location
    moments = Moments.of(vectors(pooled.astype(np.float32)))
    head = detector.head(moments)
    network = fused_network(source, detector, head, divide_brightness=divide_brightness)
    naive = NaiveDistance.of_mean_shift(pooled, detector, detector.alpha)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        for picture in (washer(50), washer(51, scratched=True), np.zeros_like(washer(0))):
            seen = engine(picture)
            expected = naive.score_map(naive_pool(network_features(engine, picture), detector.averaging))
            assert seen.score == pytest.approx(generalised_mean(expected, detector.pooling_order), rel=1e-4)
            np.testing.assert_allclose(seen.map, expected, rtol=1e-4, atol=1e-4 * expected.max())


@BRIGHTNESS
def test_features_and_their_averages_for_calibration_are_those_of_the_fused_network(*, divide_brightness: bool) -> None:
    backbone, picture = random_backbone(), washer(3)
    detector = MeanShift(averaging=3)
    head = detector.head(Moments.of(np.random.default_rng(0).normal(size=(36, 40, 12))))
    fused = fused_network(backbone, detector, head, divide_brightness=divide_brightness)
    learning = feature_network(backbone, detector, divide_brightness=divide_brightness)
    with OnnxRuntimeEngine(fused.SerializeToString(), 1) as serving:
        features = network_features(serving, picture)
    with OnnxRuntimeEngine(learning.SerializeToString(), 1) as engine:
        np.testing.assert_allclose(network_features(engine, picture), features, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(engine.reduced(picture), naive_pool(features, 3), rtol=1e-4, atol=1e-5)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("light", [1, 60, 255])
@pytest.mark.parametrize(("mean", "std"), [((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), (MEAN, STD)])
def test_the_frame_is_converted_to_rgb_and_normalised(
    light: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    frame = np.random.default_rng(0).integers(0, light + 1, (4, 6, 3)).astype(np.uint8)
    seen = features_of(no_backbone(mean, std), [frame], divide_brightness=False)[0]
    for row, column in np.ndindex(4, 6):
        blue, green, red = (int(value) for value in frame[row, column])
        expected = [(value / 255 - m) / s for value, m, s in zip((red, green, blue), mean, std, strict=True)]
        np.testing.assert_allclose(seen[:, row, column], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("light", [2, 60, 255])
def test_division_by_brightness_gives_every_frame_the_same_mean(light: int) -> None:
    frame = np.random.default_rng(0).integers(0, light + 1, (4, 6, 3)).astype(np.uint8)
    seen = features_of(no_backbone(MEAN, STD), [frame], divide_brightness=True)[0]
    picture = frame[..., ::-1].astype(np.float64) / max(frame.mean(), 1.0) * 0.45
    expected = ((picture - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-5)


def test_a_black_frame_stays_black_when_divided_by_its_brightness() -> None:
    black = np.zeros((4, 6, 3), np.uint8)
    backbone = no_backbone((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (features_of(backbone, [black], divide_brightness=True)[0] == 0).all()


def test_twice_the_light_changes_nothing_when_divided_by_brightness() -> None:
    picture = washer(0) // 2
    dim, bright = features_of(random_backbone(), [picture, picture * 2], divide_brightness=True)
    np.testing.assert_allclose(dim, bright, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", DETECTORS)
def test_inputs_outputs_and_head_of_the_network_have_their_documented_form(kind: str) -> None:
    detector = DETECTORS[kind]
    side = 8 - detector.averaging + 1
    locations = side**2 if detector.location == "local" else 1
    head = detector.head(Moments.of(np.random.default_rng(0).normal(size=(locations, 40, 12))))
    network = fused_network(random_backbone(), detector, head, divide_brightness=False)
    onnx.checker.check_model(network, full_check=True)
    assert [entry.version for entry in network.opset_import if not entry.domain] == [17]
    shapes = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*network.graph.input, *network.graph.output)
    }
    assert shapes == {
        "frame": (1, SIDE, SIDE, 3),
        "score": (1,),
        "map": (1, side, side),
        "features": (1, 12, 8, 8),
    }
    initializers = {each.name: numpy_helper.to_array(each) for each in network.graph.initializer}
    assert initializers["head.mean"].dtype == initializers["head.whitening"].dtype == np.float32


def test_at_infinite_order_the_score_is_the_largest_value_of_the_map() -> None:
    detector = MeanShift(pooling_order=np.inf)
    head = detector.head(Moments.of(np.random.default_rng(0).normal(size=(49, 40, 12))))
    network = fused_network(random_backbone(), detector, head, divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        seen = engine(washer(0))
    assert seen.score == seen.map.max()


def test_the_score_of_zero_distances_is_zero() -> None:
    zeros = np.zeros((2, 49), np.float32)
    assert generalised_mean_in_numpy(zeros, 8.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("order", [1.0, 2.0, 8.0, 64.0])
def test_the_score_is_below_the_largest_value_and_above_that_of_one_location_alone(order: float) -> None:
    distances = np.random.default_rng(0).gamma(2.0, 1e12, (20, 49)).astype(np.float32)
    scores, largest = generalised_mean_in_numpy(distances, order), distances.max(axis=1)
    assert (scores <= largest).all()
    assert (scores >= largest * 49 ** (-1 / order)).all()


def test_distances_beyond_half_precision_are_kept() -> None:
    random = np.random.default_rng(0)
    head = MeanShift().head(Moments.of(1e-4 * random.normal(size=(49, 40, 12))))
    network = fused_network(random_backbone(), MeanShift(), head, divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        score = engine(washer(0)).score
    assert np.isfinite(score)
    assert score > 65504**2 / 1e3


def test_a_file_that_is_not_a_network_is_refused_by_the_engine() -> None:
    with pytest.raises(EngineError, match="cannot load the network"), OnnxRuntimeEngine(b"no network", 1):
        pass


def test_filterbank_in_the_fused_network_is_the_filterbank() -> None:
    picture = washer(0)
    inner = onnx.load_from_string(filterbank(SIDE, SIDE).SerializeToString())
    seen = features_of(Backbone((FeatureGraph(inner),), "filterbank"), [picture], divide_brightness=False)[0]
    session = ort.InferenceSession(inner.SerializeToString(), providers=["CPUExecutionProvider"])
    image = (picture[..., ::-1].transpose(2, 0, 1)[None] / 255).astype(np.float32)
    np.testing.assert_allclose(seen, session.run(None, {"image": image})[0][0], atol=2e-4)
