"""Moments fitted apart and added equal one fit to all vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.manifest import DetectorRecord
from calibration.detectors.gaussian import GaussianHead
from calibration.detectors.head import WhiteningHead
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import BundleError
from calibration.network.fusion import feature_network, fused_network, reduced_shape, replace_head, without_head
from calibration.onnx_graph import GraphBuilder
from calibration.statistics.moments import Moments, merged
from calibration.update.additive import additive_detector
from tests.support.network_features import features_of

if TYPE_CHECKING:
    from calibration.backbones.backbone import Backbone
    from calibration.detectors.contract import AdditiveDetector, Detector

Vectors = NDArray[np.float64]
PLACES, CHANNELS = 4, 3
WEIGHTS = [0.3, 1.0]
DETECTORS = [
    MeanShift(),
    MeanShift(alpha=1.0, averaging=1),
    MeanShift(location="shared", pooling_order=float("inf")),
    MeanShift(location="global"),
    MeanShift(patch=2, dimensions=8),
    Padim(10),
    Padim(None),
]


@pytest.fixture
def parts() -> list[Vectors]:
    """Two sets of correlated vectors, 12 and 20 at each place, whose means differ."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(CHANNELS, CHANNELS))
    return [100 + shift + random.normal(size=(PLACES, count, CHANNELS)) @ mixing for count, shift in ((12, 0), (20, 2))]


def weighted_sum(parts: list[Moments], weights: list[float]) -> Moments:
    return merged([part.weighted(weight) for part, weight in zip(parts, weights, strict=True)])


def weights_of(parts: list[Vectors]) -> NDArray[np.float64]:
    return np.repeat(WEIGHTS, [part.shape[1] for part in parts])


def test_with_weights_of_one_the_sum_equals_one_fit_to_all(parts: list[Vectors]) -> None:
    total, once = weighted_sum([Moments.of(part) for part in parts], [1, 1]), Moments.of(np.concatenate(parts, axis=1))
    assert (total.count, total.squares, total.effective_count) == (32, 32, 32)
    np.testing.assert_allclose(total.mean, once.mean, rtol=1e-12)
    np.testing.assert_allclose(total.covariance(), once.covariance(), rtol=1e-10)


def test_mean_and_covariance_are_those_of_weighted_vectors(parts: list[Vectors]) -> None:
    total = weighted_sum([Moments.of(part) for part in parts], WEIGHTS)
    weights = weights_of(parts)
    for place, vectors in enumerate(np.concatenate(parts, axis=1)):
        np.testing.assert_allclose(total.mean[place], np.average(vectors, axis=0, weights=weights), rtol=1e-12)
        expected = np.cov(vectors, rowvar=False, aweights=weights)
        np.testing.assert_allclose(total.covariance()[place], expected, rtol=1e-9)
    assert total.effective_count == pytest.approx(weights.sum() ** 2 / np.square(weights).sum())


def test_one_weight_for_all_changes_no_covariance_and_no_effective_count(parts: list[Vectors]) -> None:
    whole = Moments.of(parts[0])
    half = whole.weighted(0.5)
    assert (half.count, half.effective_count) == (6, 12)
    np.testing.assert_allclose(half.covariance(), whole.covariance(), rtol=1e-12)


def test_a_weighted_sum_can_be_weighted_again(parts: list[Vectors]) -> None:
    one, other = (Moments.of(part) for part in parts)
    twice = weighted_sum([weighted_sum([one, other], [0.5, 1.0]), other], [0.5, 1.0])
    at_once = weighted_sum([one, other, other], [0.25, 0.5, 1.0])
    assert twice.effective_count == pytest.approx(at_once.effective_count)
    np.testing.assert_allclose(twice.covariance(), at_once.covariance(), rtol=1e-10)


def test_weighted_moments_survive_a_file_and_older_files_have_weights_of_one(parts: list[Vectors]) -> None:
    total = weighted_sum([Moments.of(part) for part in parts], WEIGHTS)
    packed = total.packed()
    again = Moments.unpacked(packed)
    assert (again.count, again.squares) == (total.count, total.squares)
    older = {name: array for name, array in Moments.of(parts[0]).packed().items() if name != "squares"}
    assert Moments.unpacked(older).effective_count == 12


@pytest.mark.parametrize("method", [MeanShift(), MeanShift(alpha=0.5), Padim(None)], ids=str)
@pytest.mark.parametrize("which", [0, 1])
def test_an_image_of_any_weight_is_left_out_exactly(parts: list[Vectors], which: int, method: AdditiveDetector) -> None:
    total = weighted_sum([Moments.of(part) for part in parts], WEIGHTS)
    one = parts[which][:, :1]
    remaining = [np.delete(part, 0, axis=1) if part is parts[which] else part for part in parts]
    without = weighted_sum([Moments.of(part) for part in remaining], WEIGHTS)
    reduced = one.transpose(1, 2, 0)[..., None].astype(np.float32)
    score = method.leave_one_out_scorer(total, reduced, WEIGHTS[which]).scores(reduced).map
    shift = one[:, 0] - without.mean
    covariance = without.covariance()
    if isinstance(method, MeanShift):
        target = without.covariance().mean(axis=0)
        variances = np.diag(target)
        target = target + np.diag(1e-3 * np.maximum(variances, 1e-3 * variances.mean()))
        covariance = (1 - method.alpha) * covariance + method.alpha * target
    else:
        covariance = covariance + 0.01 * np.eye(CHANNELS)
    expected = [v @ np.linalg.solve(c, v) for v, c in zip(shift, covariance, strict=True)]
    np.testing.assert_allclose(score.ravel(), expected, rtol=1e-4)


@pytest.mark.parametrize("from_moments", [False, True])
def test_an_older_bundle_keeps_its_alpha_wherever_it_came_from(*, from_moments: bool) -> None:
    parameters: dict[str, bool | int | float | str] = {
        "alpha": 0.2,
        "alpha_from_moments": from_moments,
        "pooling_order": 8.0,
    }
    assert additive_detector(DetectorRecord(name="mean_shift", parameters=parameters)) == MeanShift(alpha=0.2)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return filterbank_backbone(64, 96)


def head_for(detector: Any, backbone: Backbone, seed: int) -> WhiteningHead:  # noqa: ANN401 - mean_shift or padim
    channels, height, width = reduced_shape(feature_network(backbone, detector, divide_brightness=False))
    places = 1 if getattr(detector, "location", "local") == "shared" else height * width
    vectors = np.random.default_rng(seed).normal(size=(places, 30, channels))
    head = detector.head(Moments.of(vectors))
    assert isinstance(head, WhiteningHead)
    return head


@pytest.mark.parametrize("detector", DETECTORS, ids=str)
def test_a_network_with_a_new_head_equals_a_fresh_one_to_the_byte(detector: Detector, backbone: Backbone) -> None:
    one, other = (head_for(detector, backbone, seed) for seed in (0, 1))
    fused = [
        fused_network(backbone, detector, head, divide_brightness=True).SerializeToString() for head in (one, other)
    ]
    assert replace_head(fused[0], one) == fused[0]
    assert replace_head(fused[0], other) == fused[1] != fused[0]


def test_a_head_of_another_form_replaces_the_old_one(backbone: Backbone) -> None:
    """All locations may come to share one whitening, or no longer share it."""
    local, shared = MeanShift(), MeanShift(alpha=1.0)
    heads = [head_for(each, backbone, 0) for each in (local, shared)]
    assert [len(head.whitening) for head in heads] == [15, 1]
    fused = [fused_network(backbone, local, head, divide_brightness=False).SerializeToString() for head in heads]
    assert replace_head(fused[0], heads[1]) == fused[1]
    assert replace_head(fused[1], heads[0]) == fused[0]


def test_everything_before_the_head_stays_the_same(backbone: Backbone) -> None:
    detector = MeanShift()
    network = fused_network(backbone, detector, head_for(detector, backbone, 0), divide_brightness=False)
    again = onnx.load_from_string(replace_head(network.SerializeToString(), head_for(detector, backbone, 1)))
    assert [node.SerializeToString() for node in network.graph.node] == [
        node.SerializeToString() for node in again.graph.node
    ]
    changed = [
        one.name
        for one, other in zip(network.graph.initializer, again.graph.initializer, strict=True)
        if one.SerializeToString() != other.SerializeToString()
    ]
    assert changed == ["head.mean", "head.whitening"]


def test_a_network_without_its_head_equals_the_network_for_calibration(backbone: Backbone) -> None:
    detector = MeanShift()
    network = fused_network(backbone, detector, head_for(detector, backbone, 0), divide_brightness=False)
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for_calibration = feature_network(backbone, detector, divide_brightness=False).SerializeToString()
    with (
        OnnxRuntimeEngine(without_head(network.SerializeToString()), 1) as one,
        OnnxRuntimeEngine(for_calibration, 1) as other,
    ):
        np.testing.assert_array_equal(one.reduced(frame), other.reduced(frame))
        np.testing.assert_array_equal(features_of(one, frame), features_of(other, frame))


def test_a_network_with_another_kind_of_head_is_refused() -> None:
    graph = GraphBuilder("shiftwatch")
    head = GaussianHead((np.zeros(2, np.float32),), (np.eye(2, dtype=np.float32),))
    graph.add("Identity", graph.constant("head.mean.0", head.means[0]), output="score")
    network = graph.model({}, {"score": (1, (2,))}).SerializeToString()
    with pytest.raises(BundleError, match=r"(?s)no head that could be replaced.*mean_shift or padim"):
        replace_head(network, WhiteningHead(np.zeros((1, 2), np.float32), np.eye(2, dtype=np.float32)[None]))
