"""Hermann et al. 2022: the detector against the paper's equations, in NumPy and in the exported graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import onnxruntime as ort
import pytest

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.hotelling import Hotelling, HotellingHead
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.onnx_graph import FLOAT, FeatureMap, GraphBuilder, GridCell
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.presets import PRESETS
from calibration.workstation.settings import Settings
from tests.calibration.papers import oracle_hermann
from tests.support.network_features import features_of
from tests.support.random_backbone import random_backbone
from tests.support.washers import Drawn, washer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

CHANNELS = 5
CELL = GridCell(16, 16, None)
# R and A in pixels, grid, and a constant in all features
SIZES = [(16, 16, (4, 5), 0.0), (32, 48, (5, 5), 100.0), (48, 48, (4, 6), 0.0), (64, 80, (6, 5), -30.0)]


def features(seed: int, count: int, grid: tuple[int, int], offset: float) -> Float32:
    """Correlated, of unlike scales and of another mean at each cell."""
    random = np.random.default_rng(seed)
    fixed = np.random.default_rng(0)
    mixing = fixed.normal(size=(CHANNELS, CHANNELS)) * fixed.uniform(0.1, 3.0, CHANNELS)
    means = fixed.normal(size=(CHANNELS, *grid))
    varied = np.einsum("ij,njhw->nihw", mixing, random.normal(size=(count, CHANNELS, *grid)))
    return np.asarray(offset + means + varied, np.float32)


def in_both(head: HotellingHead, tested: Float32) -> list[tuple[Float64, Float64]]:
    """Scores and maps, in NumPy and in ONNX Runtime."""
    graph = GraphBuilder("head")
    shape = tested.shape[1:]
    grid = head.attach(graph, FeatureMap("reduced", (shape[0], shape[1], shape[2])))
    model = graph.model({"reduced": (FLOAT, (1, *shape))}, {"score": (FLOAT, (1,)), "map": (FLOAT, (1, *grid))})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    exported = [session.run(["score", "map"], {"reduced": each[None]}) for each in tested]
    numpy_scores = head.scores(tested)
    return [
        (numpy_scores.score.astype(np.float64), numpy_scores.map.astype(np.float64)),
        (np.concatenate([score for score, _ in exported]), np.concatenate([located for _, located in exported])),
    ]


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("location", ["local", "shared", "global"])
@pytest.mark.parametrize(("patch_px", "region_px", "grid", "offset"), SIZES)
def test_scores_are_those_of_the_equations(  # noqa: PLR0913, PLR0917
    patch_px: int,
    region_px: int,
    grid: tuple[int, int],
    offset: float,
    location: Literal["local", "shared", "global"],
    modes: int,
    tmp_path: Path,
) -> None:
    good, tested = features(1, 14, grid, offset), features(2, 4, grid, offset)
    folds = Folds([range(5), range(5, 9), range(9, 14)])
    detector = Hotelling(patch_px, region_px, location, modes).on_grid(CELL, grid)
    with FeatureStore(tmp_path, (CHANNELS, *grid)) as store:
        for each in good:
            store.append(each)
        fit = detector.fit(store, folds, [CHANNELS])
        heads = [fit.head, *fit.held_out]
    assert oracle_hermann.patch_pixels(detector.patch, CELL.patch_px, CELL.stride_px) == patch_px
    if location != "global":
        assert oracle_hermann.pooling_cells(region_px, patch_px, CELL.stride_px) == detector.averaging
    for head, images in zip(heads, [folds.images, *folds.complements()], strict=True):
        assert isinstance(head, HotellingHead)
        learnt = good[images].astype(np.float64)
        statistics = oracle_hermann.fit(learnt, detector.patch)
        means = expected_means(learnt, detector.patch, detector.averaging, location, modes)
        wanted = tested.astype(np.float64)
        if location == "global":
            located = oracle_hermann.global_score(wanted, statistics, means)[:, None, None]
        else:
            located = oracle_hermann.score_map(wanted, statistics, detector.averaging, means)
        for seen_score, seen_map in in_both(head, tested):
            assert seen_score == pytest.approx(oracle_hermann.score(located), rel=1e-4)
            np.testing.assert_allclose(seen_map, located, rtol=1e-4, atol=1e-4 * located.max())
    assert fit.parameters["shrinkage"] == pytest.approx(
        oracle_hermann.fit(good.astype(np.float64), detector.patch).shrinkage
    )


def test_the_preset_scores_as_the_equations_do_in_the_exported_network(tmp_path: Path) -> None:
    """With cells of 8 pixels, so that a patch has 8 x 8 of them."""
    detector, backbone = PRESETS["hermann2022"].detector, random_backbone(88)
    good = [washer(number, side=88) for number in range(12)]
    settings = Settings(Preprocess(88, 88), detector, threads=1)
    bundle = calibrate(Drawn(good), backbone, settings, tmp_path / "bundle", lambda *_: None)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        learnt = np.stack([features_of(engine, each) for each in good]).astype(np.float64)
        tested = [washer(50, side=88), washer(51, side=88, scratched=True)]
        seen = [engine(each) for each in tested]
        given = np.stack([features_of(engine, each) for each in tested]).astype(np.float64)
    patch = 1 + (64 - 8) // 8
    rho = oracle_hermann.pooling_cells(80, oracle_hermann.patch_pixels(patch, 8, 8), 8)
    means = oracle_hermann.location_means(learnt, patch, rho)
    located = oracle_hermann.score_map(given, oracle_hermann.fit(learnt, patch), rho, means)
    for result, expected in zip(seen, located, strict=True):
        assert result.map.shape == (2, 2)
        np.testing.assert_allclose(result.map, expected, rtol=1e-4)
        assert result.score == pytest.approx(expected.max(), rel=1e-4)


def expected_means(good: Float64, patch: int, rho: int, location: str, modes: int) -> Float64 | None:
    """What distances are measured from; None: the mean of eq. 5."""
    if modes > 1 and location == "global":
        return greedy_centres(oracle_hermann.patches(good, patch).mean(axis=(2, 3))[:, :, None, None], modes)
    if modes > 1:
        return greedy_centres(oracle_hermann.averages(good, patch, rho), modes)
    return oracle_hermann.location_means(good, patch, rho) if location == "local" else None


def greedy_centres(local: Float64, count: int) -> Float64:
    """As ``oracle_hermann.several_means``, from the one nearest the mean on."""
    candidates = local.transpose(0, 2, 3, 1).reshape(-1, local.shape[1])
    start = int(np.linalg.norm(candidates - candidates.mean(axis=0), axis=1).argmin())
    vectors = candidates.T[None, :, :, None]
    return oracle_hermann.several_means(vectors, 1, 1, count, start)
