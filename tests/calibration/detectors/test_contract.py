"""One contract suite over every detector."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.backbones.backbone import Backbone
from calibration.bundle.bundle import check_golden, open_bundle
from calibration.detectors.contract import Folds
from calibration.detectors.cross_validation import make_folds
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.hotelling import Hotelling, HotellingOnGrid
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patch_svdd import PatchSvdd, split_levels
from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DegenerateFeaturesError, ModelTooLargeError
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network, feature_shape, reduced_shape
from calibration.onnx_graph import FLOAT, FeatureGraph, GraphBuilder, GridCell
from calibration.statistics.moments import Moments
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.calibration.papers import oracle_hermann
from tests.calibration.papers.oracle_resampling import bilinear, gaussian_blur
from tests.support.levels import CHANNELS, levels_of, two_fields, two_levels
from tests.support.network_features import features_of
from tests.support.oracles import (
    NaiveDistance,
    gaussian_score,
    generalised_mean,
    memory_score,
    naive_pool,
    two_field_score,
)
from tests.support.stored import stored
from tests.support.washers import SIDE, Drawn, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import Detector
    from calibration.imaging.preprocess import Image
    from calibration.workstation.dataset import NamedImage
    from tests.support.outcome import Outcome

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
DETECTORS: dict[str, Detector] = {
    "mean_shift": MeanShift(),
    "mean_shift, large alpha": MeanShift(alpha=0.3, averaging=1),
    "mean_shift, shared": MeanShift(location="shared"),
    "mean_shift, global": MeanShift(location="global"),
    "mean_shift, patches in fewer dimensions": MeanShift(patch=2, dimensions=12, pooling_order=np.inf),
    "mean_shift, two modes": MeanShift(modes=2),
    "mean_shift, two modes, shared": MeanShift(modes=2, location="shared"),
    "hotelling": Hotelling(patch_px=16, region_px=32),
    "hotelling, two modes": Hotelling(patch_px=16, region_px=32, modes=2),
    "hotelling, global": Hotelling(patch_px=16, location="global"),
    "padim": Padim(dimensions=7),
    "padim, all channels": Padim(dimensions=None),
    "padim, smoothed": Padim(dimensions=7, smoothing=3).on_image((SIDE, SIDE)),
    "gaussian": Gaussian(),
    "gaussian, pca": Gaussian("pca"),
    "gaussian, npca": Gaussian("npca"),
    "patchcore": PatchCore(coreset=0.05),
    "patchcore, all remembered": PatchCore(coreset=1.0, neighbours=3, aggregation=1),
    "patchcore, smoothed": PatchCore(coreset=0.05, smoothing=3).on_image((SIDE, SIDE)),
    "patch_svdd": PatchSvdd(entries=40),
    "patch_svdd, all remembered": PatchSvdd(entries=None),
}
ONE_BY_ONE = {
    "mean_shift",
    "mean_shift, large alpha",
    "mean_shift, patches in fewer dimensions",
    "mean_shift, global",
    "padim",
    "padim, all channels",
    "padim, smoothed",
}
EACH = pytest.mark.parametrize("kind", DETECTORS)
COUNT = 24


def fit(detector: Detector, pictures: Sequence[Image], path: Path, backbone: Backbone | None = None) -> Bundle:
    settings = Settings(Preprocess(SIDE, SIDE), detector, threads=1)
    return calibrate(Drawn(pictures), backbone or backbone_of(detector), settings, path, lambda *_: None)


def backbone_of(detector: Detector) -> Backbone:
    """One that the detector can take."""
    return two_fields() if isinstance(detector, PatchSvdd) else two_levels()


def reduced_of(detector: Detector, pictures: Sequence[Image]) -> Float32:
    """What the detector learns from, (n, d, h, w)."""
    network = feature_network(backbone_of(detector), detector, divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        return np.stack([engine.reduced(picture) for picture in pictures])


@dataclass
class Calibrated:
    """A detector and its bundle of good washers, calibrated through the pipeline."""

    detector: Detector
    bundle: Bundle
    good: list[Image]


@pytest.fixture(scope="module")
def calibrated_by(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Calibrated]:
    """One bundle for each detector, made when first asked for."""
    folder = tmp_path_factory.mktemp("detectors")
    good = [washer(number) for number in range(COUNT)]
    made: dict[str, Calibrated] = {}

    def calibrated(kind: str) -> Calibrated:
        if kind not in made:
            made[kind] = Calibrated(DETECTORS[kind], fit(DETECTORS[kind], good, folder / str(len(made))), good)
        return made[kind]

    return calibrated


@pytest.mark.slow
@EACH
def test_the_bundle_opens_and_reproduces_its_golden_scores(
    calibrated_by: Callable[[str], Calibrated], kind: str
) -> None:
    bundle = open_bundle(calibrated_by(kind).bundle.path)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        checks = check_golden(bundle, engine)
        assert features_of(engine, washer(0)).shape == feature_shape(backbone_of(DETECTORS[kind]))
        for picture in (np.zeros_like(washer(0)), np.full_like(washer(0), 255)):
            seen = engine(picture)
            assert np.isfinite(seen.score)
            assert np.isfinite(seen.map).all()
    assert len(checks) == 4
    assert max(check.deviation for check in checks) < 1e-4
    assert bundle.manifest.detector.name == DETECTORS[kind].name


@EACH
def test_the_network_gives_the_scores_of_the_formulas(calibrated_by: Callable[[str], Calibrated], kind: str) -> None:
    calibrated = calibrated_by(kind)
    expected = oracle(calibrated)
    tested = [*(washer(number) for number in (50, 51)), washer(52, scratched=True), np.zeros_like(washer(0))]
    with OnnxRuntimeEngine(calibrated.bundle.network, 1) as engine:
        for picture, reduced in zip(tested, reduced_of(calibrated.detector, tested), strict=True):
            seen = engine(picture)
            score, score_map = expected(reduced.astype(np.float64))
            assert seen.score == pytest.approx(score, rel=1e-4)
            assert seen.map.shape == score_map.shape
            np.testing.assert_allclose(seen.map, score_map, rtol=1e-4, atol=1e-4 * score_map.max())


@EACH
def test_the_reduction_is_that_of_the_formulas(kind: str) -> None:
    """From the features of the same network and, for the levels on their own grids, from the backbone alone."""
    detector, backbone, picture = DETECTORS[kind], backbone_of(DETECTORS[kind]), washer(3)
    network = feature_network(backbone, detector, divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        features, reduced = features_of(engine, picture).astype(np.float64), engine.reduced(picture)
    if isinstance(detector, Hotelling):
        expected = features
    elif isinstance(detector, MeanShift):
        patches = naive_patches(features, detector.patch)
        if detector.dimensions is not None:
            names = {each.name: numpy_helper.to_array(each) for each in network.graph.initializer}
            directions = names["reduce.projection"][:, :, 0, 0].astype(np.float64)
            np.testing.assert_allclose(directions @ directions.T, np.eye(detector.dimensions), atol=1e-6)
            patches = np.einsum("kd,dhw->khw", directions, patches)
        window = patches.shape[1] if detector.location == "global" else detector.averaging
        expected = naive_pool(patches.astype(np.float32), window)
    elif isinstance(detector, PatchCore):
        averaged = [naive_neighbourhoods(level[0], detector.aggregation) for level in levels_of(backbone, [picture])]
        expected = np.concatenate([bilinear(level, (8, 8)) for level in averaged])
    elif isinstance(detector, Gaussian):
        levels = levels_of(backbone, [picture])
        expected = np.concatenate([level[0].mean(axis=(1, 2)) for level in levels])[:, None, None]
    elif isinstance(detector, PatchSvdd):
        fine, coarse = (level[0] for level in levels_of(backbone, [picture]))
        expected = np.zeros((8, 9 + 1, 9))
        expected[:, :9], expected[:, 9:, :1] = fine, coarse
    else:
        copied = [np.kron(level[0], np.ones([8 // level.shape[2]] * 2)) for level in levels_of(backbone, [picture])]
        joined = np.concatenate(copied)
        chosen = np.abs(reduced[:, None] - joined[None]).max(axis=(2, 3)).argmin(axis=1)
        assert (np.diff(chosen) > 0).all()
        expected = joined[chosen]
    np.testing.assert_allclose(reduced, expected, rtol=1e-4, atol=1e-5)


def naive_patches(features: Float64, side: int) -> Float64:
    """Each place's vectors of side x side cells, one after another, row by row."""
    channels, height, width = features.shape
    patches = np.empty((channels * side**2, height - side + 1, width - side + 1))
    for row, column in np.ndindex(*patches.shape[1:]):
        patches[:, row, column] = np.concatenate(
            [features[:, row + down, column + right] for down in range(side) for right in range(side)]
        )
    return patches


def naive_neighbourhoods(features: Float64, side: int) -> Float64:
    """Each place's mean over its neighbourhood, which is zero outside of the level."""
    reach = side // 2
    padded = np.pad(features, ((0, 0), (reach, reach), (reach, reach)))
    pooled = np.empty_like(features)
    for row, column in np.ndindex(*features.shape[1:]):
        pooled[:, row, column] = padded[:, row : row + side, column : column + side].mean(axis=(1, 2))
    return pooled


def oracle(calibrated: Calibrated) -> Callable[[Float64], tuple[float, Float64]]:
    """Score and map of reduced features, (d, h, w)."""
    good = reduced_of(calibrated.detector, calibrated.good).astype(np.float64)
    if isinstance(calibrated.detector, PatchCore):
        return patchcore_oracle(calibrated, good)
    if isinstance(calibrated.detector, PatchSvdd):
        both = split_levels(good)
        banks = [
            remembered(calibrated, calibrated.detector.entries, each, f".{side}")
            for each, side in zip(both, (32, 64), strict=True)
        ]
        return lambda reduced: two_field_score(banks, split_levels(reduced), (SIDE, SIDE))
    if isinstance(calibrated.detector, Hotelling):
        return hotelling_oracle(sized(calibrated.detector, good.shape[2:]), good)
    if isinstance(calibrated.detector, Gaussian):
        chosen = calibrated.detector.components, calibrated.detector.retained_variance
        levels = split(good[:, :, 0, 0])
        return lambda reduced: one_place(
            gaussian_score(levels, [each[0] for each in split(reduced[None, :, 0, 0])], *chosen)
        )
    if isinstance(calibrated.detector, Padim):
        return padim_oracle(calibrated.detector, good)
    return mean_shift_oracle(calibrated, good)


def mean_shift_oracle(calibrated: Calibrated, good: Float64) -> Callable[[Float64], tuple[float, Float64]]:
    detector = calibrated.detector
    assert isinstance(detector, MeanShift)
    if detector.modes > 1:
        return modes_oracle(calibrated, good)
    alpha = calibrated.bundle.manifest.detector.parameters["alpha"]
    naive = NaiveDistance.of_mean_shift(good, detector, float(alpha))
    return lambda reduced: with_score(naive.score_map(reduced), detector.pooling_order)


def patchcore_oracle(calibrated: Calibrated, good: Float64) -> Callable[[Float64], tuple[float, Float64]]:
    detector = calibrated.detector
    assert isinstance(detector, PatchCore)
    bank = remembered(calibrated, round(detector.coreset * (good.size // good.shape[1])), good)

    def expected(reduced: Float64) -> tuple[float, Float64]:
        score, score_map = memory_score(bank, reduced, detector.neighbours)
        return score, smoothed(score_map, detector.smoothing)

    return expected


def padim_oracle(detector: Detector, good: Float64) -> Callable[[Float64], tuple[float, Float64]]:
    assert isinstance(detector, Padim)
    naive, sigma = NaiveDistance.of_padim(good), detector.smoothing

    def expected(reduced: Float64) -> tuple[float, Float64]:
        squares = naive.score_map(reduced)
        return with_score(squares if sigma is None else smoothed(np.sqrt(squares), sigma), np.inf)

    return expected


def sized(detector: Detector, grid: tuple[int, ...]) -> Detector:
    """The detector for cells of 8 pixels, as those of ``two_levels`` are."""
    return detector.on_grid(GridCell(8, 8, None), (grid[0], grid[1])) if isinstance(detector, Hotelling) else detector


def hotelling_oracle(detector: Detector, good: Float64) -> Callable[[Float64], tuple[float, Float64]]:
    assert isinstance(detector, HotellingOnGrid)
    patch, window = detector.patch, detector.averaging
    statistics = oracle_hermann.fit(good, patch)
    if detector.location == "global":
        return lambda reduced: one_place(oracle_hermann.global_score(reduced[None], statistics)[0])
    means = oracle_hermann.location_means(good, patch, window)
    if detector.modes > 1:
        candidates = oracle_hermann.averages(good, patch, window).transpose(0, 2, 3, 1).reshape(-1, means.shape[1])
        start = int(np.linalg.norm(candidates - candidates.mean(axis=0), axis=1).argmin())
        means = oracle_hermann.several_means(good, patch, window, detector.modes, start)
    return lambda reduced: with_score(oracle_hermann.score_map(reduced[None], statistics, window, means)[0], np.inf)


def smoothed(score_map: Float64, sigma: int | None) -> Float64:
    """In pixels of the network input; None leaves it."""
    return score_map if sigma is None else gaussian_blur(bilinear(score_map, (SIDE, SIDE)), sigma)


def modes_oracle(calibrated: Calibrated, good: Float64) -> Callable[[Float64], tuple[float, Float64]]:
    """Distance to the nearest mean, in the metric of what is left around the means; the means are the network's."""
    detector = calibrated.detector
    assert isinstance(detector, MeanShift)
    arrays = initializers(calibrated.bundle)
    places = 1 if detector.location == "shared" else int(np.prod(good.shape[2:]))
    kinds = detector.modes
    if places == 1:
        whitening = arrays["head.whitening"][None, :, :, 0, 0]
        modes = arrays["head.modes"].reshape(kinds, -1)[None]
    else:
        whitening, modes = arrays["head.whitening"].transpose(0, 2, 1), arrays["head.modes"][:, 0]
    centre = arrays["head.mean"].reshape(places, -1)
    means = np.stack([(centre + np.linalg.solve(whitening, modes[:, kind, :, None])[..., 0]) for kind in range(kinds)])
    around = [np.zeros((good.shape[1],) * 2) for _ in range(places)]
    counts = np.zeros((kinds, places))
    for picture in good:
        for number, vector in enumerate(picture.reshape(len(picture), -1).T):
            place = number if places > 1 else 0
            kind = np.linalg.norm((vector - means[:, place]) / spread_of(good, places), axis=1).argmin()
            around[place] += np.outer(vector - means[kind, place], vector - means[kind, place])
            counts[kind, place] += 1
    assert (counts > 0).all()
    covariances = [each / (counts[:, place].sum() - kinds) for place, each in enumerate(around)]
    target = np.mean(covariances, axis=0)
    target += np.diag(detector.ridge * np.maximum(np.diag(target), 1e-3 * np.diag(target).mean()))
    alpha = 1.0 if places == 1 else detector.alpha
    naive = [
        NaiveDistance(means[kind], np.array([(1 - alpha) * each + alpha * target for each in covariances]))
        for kind in range(kinds)
    ]
    return lambda reduced: with_score(
        np.min([each.score_map(reduced) for each in naive], axis=0), detector.pooling_order
    )


def spread_of(good: Float64, places: int) -> Float64:
    flat = good.reshape(len(good), good.shape[1], -1)
    if places == 1:
        flat = flat.transpose(0, 2, 1).reshape(-1, good.shape[1], 1)
    spread = np.sqrt(flat.var(axis=0).mean(axis=1))
    return np.asarray(np.maximum(spread, 0.03 * spread.mean()))


def with_score(score_map: Float64, order: float) -> tuple[float, Float64]:
    return generalised_mean(score_map, order), score_map


def one_place(score: float) -> tuple[float, Float64]:
    return score, np.array([[score]])


def remembered(calibrated: Calibrated, entries: int | None, good: Float64, suffix: str = "") -> Float64:
    """The bank: all patches, or those that the network holds, each of which must be another one of them."""
    patches: Float64 = good.transpose(0, 2, 3, 1).reshape(-1, good.shape[1])
    if entries is None or entries >= len(patches):
        return patches
    arrays = initializers(calibrated.bundle)
    bank: Float64 = arrays[f"head.bank{suffix}"].astype(np.float64) + arrays[f"head.mean{suffix}"].reshape(1, -1)
    assert len(bank) == entries
    distances = np.linalg.norm(bank[:, None] - patches[None], axis=2)
    assert distances.min(axis=1).max() < 1e-5
    assert len(set(distances.argmin(axis=1).tolist())) == len(bank)
    return bank


def split(vectors: Float64) -> list[Float64]:
    return np.split(vectors, np.cumsum(CHANNELS)[:-1], axis=1)


def initializers(bundle: Bundle) -> dict[str, NDArray[Any]]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(bundle.network).graph.initializer}


@EACH
def test_the_head_is_in_the_network_by_name_and_in_single_precision(
    calibrated_by: Callable[[str], Calibrated], kind: str
) -> None:
    head = {
        name: each.dtype for name, each in initializers(calibrated_by(kind).bundle).items() if name.startswith("head.")
    }
    assert any(name.startswith("head.mean") for name in head)
    assert set(head.values()) <= ({np.dtype(np.float32)} | ({np.dtype(np.int64)} if "patchcore" in kind else set()))


@pytest.mark.slow
@EACH
def test_two_runs_give_the_same_files_to_the_byte(
    calibrated_by: Callable[[str], Calibrated], kind: str, tmp_path: Path
) -> None:
    calibrated = calibrated_by(kind)
    assert (
        fit(calibrated.detector, calibrated.good, tmp_path / "again").manifest.files == calibrated.bundle.manifest.files
    )


@pytest.mark.slow
@EACH
@pytest.mark.parametrize("sequential", [False, True])
def test_every_good_score_comes_from_a_head_that_has_not_seen_the_image(
    kind: str, tmp_path: Path, *, sequential: bool
) -> None:
    """What is held out is thrown away before a detector of the same kind learns from the others."""
    detector, good = DETECTORS[kind], [washer(number) for number in range(15)]
    settings = Settings(Preprocess(SIDE, SIDE), detector, threads=1)
    images = Drawn(good, sequential=sequential)
    scores = calibrate(images, backbone_of(detector), settings, tmp_path / "bundle", lambda *_: None).reference()[
        "good_scores"
    ]
    reduced = reduced_of(detector, good)
    folds = make_folds(len(good), sequential=sequential)
    on_grid = sized(detector, reduced.shape[2:])
    with stored(reduced, tmp_path) as store:
        one_by_one = on_grid.fit(store, folds, CHANNELS).leave_one_out
    assert one_by_one == (not sequential and kind in ONE_BY_ONE)
    # Whole folds are missing from the pooled covariance: test_leave_one_out.py has the exact formula.
    tolerance = 0.3 if one_by_one and "mean_shift" in kind else 1e-4
    for part in [[number] for number in range(len(good))] if one_by_one else folds.groups:
        others = np.delete(reduced, part, axis=0)
        with stored(others, tmp_path) as store:
            head = on_grid.fit(store, Folds([range(6), range(6, len(others))]), CHANNELS).head
        np.testing.assert_allclose(scores[part], head.scores(reduced[part]).score, rtol=tolerance)


@EACH
def test_held_out_scores_do_not_depend_on_the_images_of_the_fold(kind: str, tmp_path: Path) -> None:
    """A spoilt image changes the heads that have seen it, and not the one that has not."""
    reduced = reduced_of(DETECTORS[kind], [washer(number) for number in range(15)])
    folds = Folds([range(5), range(5, 10), range(10, 15)])
    spoilt = reduced.copy()
    spoilt[7] += np.random.default_rng(0).normal(size=spoilt.shape[1:])
    detector, scores = sized(DETECTORS[kind], reduced.shape[2:]), []
    for features in (reduced, spoilt):
        with stored(features, tmp_path) as store:
            scores.append([head.scores(reduced).score for head in detector.fit(store, folds, CHANNELS).held_out])
    # Where the sums of a fold are taken from those of all images, its rounding is left.
    rounding = 1e-6 if isinstance(detector, Hotelling) else 0.0
    same = [np.allclose(one, other, rtol=rounding, atol=0.0) for one, other in zip(*scores, strict=True)]
    assert same == [False, True, False]


@pytest.mark.slow
@EACH
def test_a_scratch_scores_above_good_washers(
    kind: str, good_washers: list[Image], small_filterbank: Backbone, tmp_path: Path
) -> None:
    backbone = None if isinstance(DETECTORS[kind], PatchSvdd) else small_filterbank
    bundle = fit(DETECTORS[kind], good_washers, tmp_path / "bundle", backbone)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        good = [engine(washer(number)).score for number in range(300, 310)]
        scratched = [engine(washer(number, scratched=True)).score for number in range(400, 410)]
    assert min(scratched) > max(good)
    assert min(scratched) > bundle.manifest.working_point.threshold


@EACH
def test_copies_of_one_image_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DegenerateFeaturesError, match=r"(?s)features of all images are the same.*different good parts"):
        fit(DETECTORS[kind], [washer(0)] * 12, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@EACH
def test_half_of_the_images_may_be_copies(kind: str, tmp_path: Path) -> None:
    """A copy of a calibration image may have a distance of zero, which has no logarithm."""
    point = fit(DETECTORS[kind], [washer(number // 2) for number in range(24)], tmp_path / "b").manifest.working_point
    assert np.isfinite(point.threshold)
    assert point.threshold > 0


@EACH
def test_features_that_are_not_finite_are_refused(kind: str, tmp_path: Path) -> None:
    (part,) = backbone_of(DETECTORS[kind]).graphs
    backbone = Backbone((FeatureGraph(part.model, std=(1e-40,) * 3),), "overflowing")
    with pytest.raises(DegenerateFeaturesError, match="not finite"):
        fit(DETECTORS[kind], [washer(number) for number in range(12)], tmp_path / "bundle", backbone)
    assert list(tmp_path.iterdir()) == []


@EACH
def test_a_monochrome_camera_can_be_calibrated(kind: str, tmp_path: Path) -> None:
    grey = [np.repeat(washer(number)[..., :1], 3, axis=2) for number in range(12)]
    assert np.isfinite(fit(DETECTORS[kind], grey, tmp_path / "bundle").manifest.working_point.threshold)


@EACH
def test_the_manifest_has_the_parameters_of_the_detector(calibrated_by: Callable[[str], Calibrated], kind: str) -> None:
    calibrated = calibrated_by(kind)
    parameters = open_bundle(calibrated.bundle.path).manifest.detector.parameters
    assert is_dataclass(calibrated.detector)
    for parameter in fields(calibrated.detector):
        expected = getattr(calibrated.detector, parameter.name)
        if expected is not None and (parameter.name != "alpha" or parameters.get("location", "local") == "local"):
            written = "inf" if expected == np.inf else expected
            assert parameters[parameter.name] == written
            assert type(parameters[parameter.name]) is type(written)
    assert None not in parameters.values()


@EACH
def test_the_bundle_keeps_moments_if_it_can(calibrated_by: Callable[[str], Calibrated], kind: str) -> None:
    calibrated = calibrated_by(kind)
    arrays = calibrated.bundle.moments()
    if isinstance(calibrated.detector, (Gaussian, Hotelling, PatchCore, PatchSvdd)) or "modes" in kind:
        assert arrays == {}
        return
    moments = Moments.unpacked(arrays)
    channels, height, width = reduced_of(calibrated.detector, calibrated.good[:1]).shape[1:]
    shared = "shared" in kind
    assert moments.count == COUNT * (height * width if shared else 1)
    assert moments.mean.shape == (1 if shared else height * width, channels)


@EACH
def test_the_bundle_can_be_evaluated_with_and_without_masks(
    calibrated_by: Callable[[str], Calibrated], command: Callable[..., Outcome], kind: str, tmp_path: Path
) -> None:
    save(tmp_path / "set/test/good", [washer(number) for number in range(100, 104)])
    save(tmp_path / "set/test/scratch", [washer(number, scratched=True) for number in range(200, 204)])
    bundle = calibrated_by(kind).bundle.path
    without = command("evaluate", bundle, tmp_path / "set", "--scores", tmp_path / "scores.csv")
    assert without.code == 0
    assert "no masks" in without.words
    (tmp_path / "set/ground_truth/scratch").mkdir(parents=True)
    for number in range(4):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        cv2.line(mask, (SIDE // 4, SIDE // 5), (SIDE * 3 // 5, SIDE // 3), 255, 2)
        cv2.imwrite(str(tmp_path / f"set/ground_truth/scratch/{number:03}_mask.png"), mask)
    outcome = command("evaluate", bundle, tmp_path / "set", "--scores", tmp_path / "scores2.csv")
    assert outcome.code == 0
    assert "image AUROC" in outcome.words
    assert "no masks" not in outcome.words


SHAPES = {
    "hotelling": (200, 10, 10),
    "local": (60, 7, 7),
    "global": (500, 1, 1),
    "shared": (160, 14, 14),
    "gaussian": (500, 1, 1),
    "patchcore": (80, 20, 20),
    "patch_svdd": (64, 30, 25),
}


@pytest.mark.slow
@EACH
def test_a_fit_takes_no_more_memory_than_stated(kind: str, tmp_path: Path) -> None:
    shape = next((each for name, each in SHAPES.items() if name in kind), SHAPES["local"])
    count = 3 * COUNT if "patchcore" not in kind else COUNT
    if kind == "patchcore, all remembered":
        shape = (8, 10, 10)
    detector = sized(DETECTORS[kind], shape[1:])
    assert taken_mib(detector, count, shape, tmp_path) <= detector.memory_mib(shape, count)


@pytest.mark.slow
def test_patches_of_a_wide_resnet_take_no_more_memory_than_stated(tmp_path: Path) -> None:
    detector, shape = PatchCore(), (1536, 28, 28)
    assert taken_mib(detector, 12, shape, tmp_path) <= detector.memory_mib(shape, 12)


def taken_mib(detector: Detector, count: int, shape: tuple[int, int, int], folder: Path) -> float:
    """What fitting and scoring each fold takes at most."""
    random = np.random.default_rng(0)
    with stored(random.normal(size=(count, *shape)).astype(np.float32), folder) as store:
        folds = make_folds(count, sequential=False)
        tracemalloc.start()
        fitted = detector.fit(store, folds, [shape[0]])
        for fold, head in zip(folds.groups, fitted.held_out, strict=True):
            for batch in store.batches(fold):
                head.scores(batch)
        taken = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    return taken


class Untouchable(Drawn):
    def __iter__(self) -> Iterator[NamedImage]:
        pytest.fail("an image was read")


def wide_resnet() -> Backbone:
    """The sizes of WideResNet-50's second and third stage, (1536, 28, 28), from next to no weights."""
    graph = GraphBuilder("wide")
    small = graph.add("AveragePool", "image", kernel_shape=[8, 8], strides=[8, 8])
    graph.add("Conv", small, graph.constant("weights", np.ones((1536, 3, 1, 1), np.float32)), output="features")
    model = graph.model({"image": (FLOAT, (1, 3, 224, 224))}, {"features": (FLOAT, (1, 1536, 28, 28))})
    return Backbone((FeatureGraph(model),), "wide")


@pytest.mark.parametrize(
    ("detector", "remedy"),
    [(MeanShift(averaging=1), "--location shared"), (Padim(dimensions=None), "fewer dimensions")],
    ids=["mean_shift", "padim"],
)
def test_what_does_not_fit_into_memory_is_refused_with_the_remedy_before_an_image_is_read(
    detector: Detector, remedy: str, tmp_path: Path
) -> None:
    settings = Settings(Preprocess(224, 224), detector, threads=1)
    sizes = r"28x28 locations of 1536 channels need 14\d,\d\d\d MiB for their statistics; the limit is 4096 MiB"
    with pytest.raises(ModelTooLargeError, match=rf"(?s){sizes}.*{remedy}"):
        calibrate(Untouchable([washer(0)] * 700), wide_resnet(), settings, tmp_path / "bundle", lambda *_: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "detector", [MeanShift(location="shared"), Padim(), Gaussian(), PatchCore()], ids=lambda each: each.name
)
def test_features_of_a_wide_resnet_fit_into_memory_by_other_means(detector: Detector) -> None:
    network = feature_network(wide_resnet(), detector, divide_brightness=False)
    assert detector.memory_mib(reduced_shape(network), 700) < Settings(Preprocess(224, 224)).memory_limit_mib
