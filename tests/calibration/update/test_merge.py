"""Bundles are merged into one, or refused with every reason."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from agent.frame_checks.camera_checks import FrameChecks
from calibration.backbones.backbone import filterbank_backbone, onnx_backbone
from calibration.bundle.bundle import check_golden, open_bundle
from calibration.detectors.fold_moments import by_location
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import BundleError, SettingError
from calibration.imaging.preprocess import Preprocess, Region
from calibration.network.fusion import without_head
from calibration.statistics.moments import Moments
from calibration.statistics.scores import generalised_mean
from calibration.update.merge import merge
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.calibration.backbones.test_backbone import backbone_file
from tests.support.outcome import assert_refused
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import Detector
    from calibration.imaging.preprocess import Image
    from tests.support.outcome import Outcome

SETTINGS = Settings(Preprocess(SIDE, SIDE), threads=1)


def quiet(*_: object) -> None:
    """Report no progress."""


def head_of(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    network = onnx.load(bundle.network)
    return {
        each.name: numpy_helper.to_array(each) for each in network.graph.initializer if each.name.startswith("head.")
    }


def assert_same_statistics(one: Bundle, other: Bundle) -> None:
    """Mean and whitening differ by no more than a millionth of the largest number of each place."""
    ours, theirs = head_of(one), head_of(other)
    assert ours.keys() == theirs.keys() == {"head.mean", "head.whitening"}
    for name, array in ours.items():
        rows, expected = (each.reshape(len(each), -1) for each in (array, theirs[name]))
        apart = np.abs(rows - expected).max(axis=1) / np.abs(expected).max(axis=1)
        assert apart.max() < 1e-6


class Washers:
    """Bundles of washers by their numbers, each calibrated once."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self._folder = folder
        self._backbone = backbone

    def __call__(self, first: int, last: int, name: str = "", **changes: Any) -> Bundle:  # noqa: ANN401
        path = self._folder / (name or f"{first}-{last}")
        if path.exists():
            return open_bundle(path)
        backbone = changes.pop("backbone", self._backbone)
        alter = changes.pop("alter", lambda picture: picture)
        pictures = [alter(washer(number)) for number in range(first, last)]
        return calibrate(Drawn(pictures), backbone, replace(SETTINGS, **changes), path, quiet)


@pytest.fixture(scope="module")
def washers(tmp_path_factory: pytest.TempPathFactory, small_filterbank: Backbone) -> Washers:
    return Washers(tmp_path_factory.mktemp("washers"), small_filterbank)


@pytest.fixture(scope="module")
def both(washers: Washers, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Washers 0 to 39, from 16 and 24 of them."""
    return merge([washers(0, 16), washers(16, 40)], [1, 1], tmp_path_factory.mktemp("both") / "both", 1)


def small_cnn(folder: Path) -> Backbone:
    """Two convolutions with random weights, stride 8."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["edges"], strides=[4, 4], kernel_shape=[5, 5]),
        helper.make_node("Relu", ["edges"], ["rectified"]),
        helper.make_node("Conv", ["rectified", "second"], ["features"], strides=[2, 2], kernel_shape=[3, 3]),
    ]
    weights = {
        "first": random.normal(size=(8, 3, 5, 5)).astype(np.float32),
        "second": random.normal(size=(24, 8, 3, 3)).astype(np.float32),
    }
    return onnx_backbone(backbone_file(folder, nodes, constants=weights), 96, 96)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "detector", "estimate"),
    [
        (lambda _: filterbank_backbone(96, 96), MeanShift(), 0.3),
        (lambda _: filterbank_backbone(96, 96), MeanShift(alpha=0.3, averaging=3), 0.6),
        (small_cnn, MeanShift(), 0.1),
        (small_cnn, MeanShift(location="shared"), 0.1),
        (small_cnn, Padim(16), 0.15),
    ],
    ids=["filterbank", "filterbank, large alpha", "CNN", "CNN, shared", "CNN, padim"],
)
def test_two_bundles_of_tiles_become_that_of_all_tiles(
    data: Path, tmp_path: Path, make: Callable[[Path], Backbone], detector: MeanShift | Padim, estimate: float
) -> None:
    """Statistics and network exactly; the threshold as well as it can be estimated from so few images."""
    backbone = make(tmp_path)
    settings = replace(SETTINGS, preprocess=Preprocess(96, 96), detector=detector)

    def learnt(frames: slice, name: str) -> Bundle:
        return calibrate(good_images(data / "mtd", frames), backbone, settings, tmp_path / name, quiet)

    bundles = [learnt(frames, name) for frames, name in ((slice(22), "one"), (slice(22, 60), "other"))]
    merged, once = merge(bundles, [1, 1], tmp_path / "merged", 1), learnt(slice(60), "all")
    assert_same_statistics(merged, once)
    assert merged.manifest.detector.parameters.keys() == once.manifest.detector.parameters.keys()
    for name, value in once.manifest.detector.parameters.items():
        found = merged.manifest.detector.parameters[name]
        assert found == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)
    points = merged.manifest.working_point, once.manifest.working_point
    assert points[0].threshold == pytest.approx(points[1].threshold, rel=estimate)
    assert points[0].chi_square == points[1].chi_square


@pytest.mark.slow
def test_the_order_does_not_matter_and_three_are_as_good_as_two(washers: Washers, tmp_path: Path) -> None:
    three = [washers(0, 10), washers(10, 20), washers(20, 30)]
    merged = merge(three, [1, 1, 1], tmp_path / "merged", 1)
    turned = merge(three[::-1], [1, 1, 1], tmp_path / "turned", 1)
    twice = merge([merge(three[:2], [1, 1], tmp_path / "two", 1), three[2]], [1, 1], tmp_path / "twice", 1)
    for each in (turned, twice):
        assert_same_statistics(each, merged)
        assert each.manifest.images.count == 30
    assert twice.manifest.merge is not None
    assert [parent.images for parent in twice.manifest.merge.parents] == [20, 10]


@pytest.mark.slow
def test_the_manifest_names_the_parents(both: Bundle, washers: Washers) -> None:
    merge_record = both.manifest.merge
    assert merge_record is not None
    assert [parent.identity for parent in merge_record.parents] == [washers(0, 16).identity, washers(16, 40).identity]
    assert [(parent.images, parent.weight) for parent in merge_record.parents] == [(16, 1.0), (24, 1.0)]
    assert merge_record.effective_images == pytest.approx(40)
    assert merge_record.rescored == 12
    assert both.manifest.images.count == 40
    assert both.manifest.sources == ("drawn",)
    assert both.manifest.working_point.false_reject_rate == 0.01


def test_a_lower_weight_moves_the_mean_toward_the_other_bundle(washers: Washers, tmp_path: Path) -> None:
    old, new = washers(0, 16), washers(16, 40)
    merged = merge([old, new], [0.25, 1], tmp_path / "merged", 1)
    means = [head_of(bundle)["head.mean"] for bundle in (old, new, merged)]
    np.testing.assert_allclose(means[2], (4 * means[0] + 24 * means[1]) / 28, rtol=1e-5, atol=1e-6)
    record = merged.manifest.merge
    assert record is not None
    assert record.effective_images == pytest.approx(28**2 / (16 / 16 + 24))
    again = merge([merged, washers(40, 50)], [0.5, 1], tmp_path / "again", 1)
    assert again.manifest.merge is not None
    assert again.manifest.merge.effective_images == pytest.approx(24**2 / (16 / 64 + 24 / 4 + 10))


def test_the_highest_scores_are_held_out_scores(both: Bundle) -> None:
    reference = both.reference()
    numbers = np.arange(40)
    with OnnxRuntimeEngine(without_head(both.network.read_bytes()), 1) as engine:
        reduced = np.stack([engine.reduced(washer(int(number))) for number in numbers])
        highest = np.stack([engine.reduced(frame) for frame in reference["highest_frames"]])
    assert len(reference["good_scores"]) == 40
    assert set(reference["highest_scores"]) <= set(reference["good_scores"])
    for features, score, score_map in zip(highest, reference["highest_scores"], reference["highest_maps"], strict=True):
        own = [number for number in numbers if np.array_equal(reduced[number], features)]
        head = MeanShift().head(Moments.of(by_location(np.delete(reduced, own, axis=0))))
        # The score was scaled by an estimate: the ratio under the merged and the parent's statistics.
        assert score == pytest.approx(float(head.scores(features[None]).score[0]), rel=0.03)
        assert generalised_mean(score_map.reshape(1, -1), 8.0)[0] == pytest.approx(score, rel=1e-5)


def test_good_washers_pass_and_scratched_ones_do_not(both: Bundle) -> None:
    with OnnxRuntimeEngine(both.network, 1) as engine:
        check_golden(both, engine)
        good = [engine(washer(number)).score for number in range(300, 320)]
        scratched = [engine(washer(number, scratched=True)).score for number in range(400, 410)]
    assert np.mean(np.array(good) > both.manifest.working_point.threshold) <= 0.1
    assert min(scratched) > both.manifest.working_point.threshold


def test_frame_statistics_are_those_of_all_frames(both: Bundle, washers: Washers) -> None:
    ours, once = both.reference(), washers(0, 40).reference()
    of_moved = {"structure", "moved_recognised", "moved_seen_from"}
    of_defects = {name for name in once if name.startswith("defect_")}
    assert set(once) - of_defects | {"golden_weights", "highest_weights"} == set(ours) | of_moved
    assert both.manifest.forecast is None
    for name in ("brightness", "sharpness", "thumbnail_mean", "thumbnail_std", "blocks_least", "blocks_most"):
        np.testing.assert_allclose(ours[name], once[name], rtol=1e-9, atol=1e-6)
    np.testing.assert_array_equal(ours["frame_size"], once["frame_size"])
    assert ours["check_names"].tolist() == once["check_names"].tolist()


def distrusted(bundle: Bundle, pictures: list[Image]) -> list[str]:
    """What is wrong with these frames, in the eyes of the agent."""
    checks = FrameChecks(bundle.reference(), bundle.preprocess, frozen_after=None)
    located = [(each, bundle.preprocess.locate(each)) for each in pictures]
    found = [
        checks.of_frame(each) or checks.of_input(bundle.preprocess.network_input(each, place.region), place)
        for each, place in located
    ]
    return [each.fault for each in found if each]


def darker(picture: Image) -> Image:
    return (picture * 0.6).astype(np.uint8)


def test_frames_of_either_camera_pass_the_camera_checks(washers: Washers, tmp_path: Path) -> None:
    bright, dark = washers(0, 16), washers(50, 66, "dark", alter=darker)
    merged = merge([bright, dark], [1, 1], tmp_path / "merged", 1)
    new = [washer(number) for number in range(100, 110)]
    mixed = [*new, *map(darker, new)]
    assert distrusted(bright, mixed)
    assert distrusted(merged, mixed) == []
    assert distrusted(merged, [(picture * 0.05).astype(np.uint8) for picture in new])


@pytest.mark.slow
def test_the_command_merges_and_explains_the_threshold(
    command: Callable[..., Outcome], washers: Washers, labelled_folder: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "merged", tmp_path / "page.html"
    parents = washers(0, 16), washers(16, 40)
    outcome = command("merge", *(each.path for each in parents), "--weight", "0.5,1", "--output", out)
    assert outcome.code == 0
    for said in ("good images 40", parents[0].identity[:16], "16 images of weight 0.5", "threshold is an estimate"):
        assert said in outcome.words
    assert command("verify", out).code == 0
    assert command("evaluate", out, labelled_folder, "--scores", tmp_path / "s.csv", "--json", tmp_path / "j").code == 0
    assert command("report", out, "--out", page).code == 0
    text = page.read_text()
    for said in ("The threshold is an estimate", "16 images, each counting 0.5", parents[1].identity[:16]):
        assert said in text
    assert "that had not seen it" not in text


def refused(bundles: list[Bundle], folder: Path, weights: list[float] | None = None) -> str:
    with pytest.raises(SettingError) as error:
        merge(bundles, weights or [1.0] * len(bundles), folder / "merged", 1)
    assert not (folder / "merged").exists()
    return str(error.value)


def test_every_difference_is_listed(washers: Washers, tmp_path: Path) -> None:
    other = washers(
        0,
        12,
        "other",
        preprocess=Preprocess(SIDE, SIDE, Region(0, 0, 60, 60)),
        divide_brightness=True,
        detector=MeanShift(alpha=0.1, averaging=3),
    )
    said = refused([washers(0, 16), other], tmp_path)
    for difference in (
        "preprocess.region is None and {'x': 0",
        "preprocess.divide_brightness is False and True",
        "detector.alpha is 0.3 and 0.1",
        "detector.averaging is 2 and 3",
    ):
        assert difference in said
    assert "with the same options" in said


def test_thresholds_by_chi_square_are_merged_to_one_by_chi_square(washers: Washers, tmp_path: Path) -> None:
    law = {"threshold_rule": "chi-square"}
    ours, theirs = (washers(first, first + 12, f"law {first}", **law) for first in (0, 12))
    point = merge([ours, theirs], [1, 1], tmp_path / "both", 1).manifest.working_point
    assert (point.method, point.threshold) == ("chi-square", point.chi_square)
    with pytest.raises(SettingError, match="threshold by chi-square is True and False"):
        merge([ours, washers(16, 40)], [1, 1], tmp_path / "mixed", 1)


def test_differences_outside_the_manifest_are_found_in_the_features(tmp_path: Path) -> None:
    path = backbone_file(tmp_path)
    bundles = [
        Washers(tmp_path, onnx_backbone(path, SIDE, SIDE, mean))(0, 12, name)
        for name, mean in (("one", (0.0, 0.0, 0.0)), ("other", (0.5, 0.5, 0.5)))
    ]
    assert "give different features" in refused(bundles, tmp_path)


def test_features_that_differ_by_rounding_are_the_same(
    washers: Washers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with bundles calibrated on different processors."""
    one, other = washers(0, 16), washers(16, 40)
    compared: list[bytes] = []

    def features(network: bytes, frames: NDArray[np.uint8], _threads: int) -> NDArray[np.float32]:
        compared.append(network)
        return np.full((len(frames), 3, 2, 2), 1 + 1e-6 * len(compared), np.float32)

    monkeypatch.setattr("calibration.update.merge_checks.without_head", lambda network: network)  # whose heads differ
    monkeypatch.setattr("calibration.update.merge_checks._features", features)
    assert merge([one, other], [1, 1], tmp_path / "merged", 1).manifest.images.count == 40
    assert len(compared) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "reason"),
    [
        (PatchCore(coreset=0.1), "stores patches"),
        (Gaussian(), "are not kept"),
        (MeanShift(modes=2), "its modes may be others"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_methods_without_moments_are_refused_with_the_reason(
    washers: Washers,
    tmp_path: Path,
    detector: Detector,
    reason: str,
) -> None:
    bundles = [washers(first, first + 12, f"{reason} {first}", detector=detector) for first in (0, 20)]
    said = refused(bundles, tmp_path)
    assert reason in said
    assert "on all images together" in said


def test_images_never_count_twice(washers: Washers, both: Bundle, tmp_path: Path) -> None:
    one = washers(0, 16)
    copy = open_bundle(shutil.copytree(one.path, tmp_path / "copy"))
    for bundles in ([one, one], [one, copy], [both, one]):
        assert "would count twice" in refused(bundles, tmp_path)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "1 weights for 2 bundles"), ([0.0, 1.0], "cannot count 0 times"), ([1.0, 1.5], "cannot count 1.5 times")],
)
def test_weights_out_of_range_are_refused(washers: Washers, tmp_path: Path, weights: list[float], message: str) -> None:
    assert message in refused([washers(0, 16), washers(16, 40)], tmp_path, weights)


def test_one_bundle_and_a_folder_that_exists_are_refused(
    command: Callable[..., Outcome], washers: Washers, tmp_path: Path
) -> None:
    one, other = washers(0, 16).path, washers(16, 40).path
    assert_refused(command("merge", one, "--output", tmp_path / "new"), "nothing to be merged with", "two or more")
    assert_refused(command("merge", one, other, "--output", other), "already exists", "another name")
    assert_refused(command("merge", one, other, "-o", tmp_path / "b", "--weight", "1;2"), "not understood", "0.5,1")
    with pytest.raises(BundleError, match="already exists"):
        merge([open_bundle(one), open_bundle(other)], [1, 1], other)
