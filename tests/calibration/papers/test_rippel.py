"""The detector ``gaussian`` against the equations of Rippel et al. 2021, in NumPy and as the exported network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from calibration.detectors.contract import Folds
from calibration.detectors.gaussian import Gaussian
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import fused_network
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.presets import PRESETS
from calibration.workstation.settings import Settings
from tests.calibration.papers import oracle_rippel
from tests.support.levels import CHANNELS, levels_of, two_levels
from tests.support.stored import stored
from tests.support.washers import SIDE, Drawn

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

    Float64 = NDArray[np.float64]

CASES: dict[str, tuple[oracle_rippel.Reduction, float]] = {
    "all": ("none", 0.99),
    "pca": ("pca", 0.95),
    "npca": ("npca", 0.99),
}
SHARES = {"all": 0.99, "pca": 0.95, "npca": 0.01}


def noise(seed: int, count: int) -> list[Image]:
    """Images of blurred noise, each of its own light."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (count, SIDE // 8, SIDE // 8, 3)) * random.uniform(0.6, 1.0, (count, 1, 1, 1))
    return list(np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8))


@pytest.mark.parametrize("count", [40, 12], ids=["more images than channels", "few images"])
@pytest.mark.parametrize("components", CASES)
def test_scores_are_those_of_the_equations(
    components: Literal["all", "pca", "npca"], count: int, tmp_path: Path
) -> None:
    good, tested = levels_of(two_levels(), noise(0, count)), levels_of(two_levels(), noise(1, 6))
    expected = oracle_rippel.score(tested, oracle_rippel.fit(good, *CASES[components]))
    detector = PRESETS["rippel2021"].detector if components == "all" else Gaussian(components, SHARES[components])
    pooled = np.concatenate([level.mean(axis=(2, 3), keepdims=True) for level in good], axis=1).astype(np.float32)
    with stored(pooled, tmp_path) as store:
        head = detector.fit(store, Folds([range(count)]), CHANNELS).head
    averages = np.concatenate([level.mean(axis=(2, 3), keepdims=True) for level in tested], axis=1).astype(np.float32)
    np.testing.assert_allclose(head.scores(averages).score, expected, rtol=1e-4)
    network = fused_network(two_levels(), detector, head, divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        seen = [engine(image).score for image in noise(1, 6)]
    np.testing.assert_allclose(seen, expected, rtol=1e-4)


@pytest.mark.parametrize("distance", ["l2", "sed"])
def test_baselines_are_the_distances_by_channel_summed_over_levels(
    distance: Literal["l2", "sed"], tmp_path: Path
) -> None:
    good, tested = levels_of(two_levels(), noise(0, 20)), levels_of(two_levels(), noise(1, 6))
    of_level = oracle_rippel.l2_distances if distance == "l2" else oracle_rippel.sed_distances
    gaussians = oracle_rippel.fit(good)
    expected = sum(of_level(*each, per_channel=True) for each in zip(tested, gaussians, strict=True))
    pooled, averages = (
        np.concatenate([oracle_rippel.pooled(level) for level in levels], axis=1)[:, :, None, None].astype(np.float32)
        for levels in (good, tested)
    )
    with stored(pooled, tmp_path) as store:
        head = Gaussian(distance=distance).fit(store, Folds([range(20)]), CHANNELS).head
    np.testing.assert_allclose(head.scores(averages).score, expected, rtol=1e-4)


def test_the_threshold_of_one_level_is_that_of_chi_square(tmp_path: Path) -> None:
    good = levels_of(two_levels(), noise(0, 40))[:1]
    (gaussian,) = oracle_rippel.fit(good)
    probability = oracle_rippel.within_sigmas(3)
    with stored(oracle_rippel.pooled(good[0])[:, :, None, None].astype(np.float32), tmp_path) as store:
        law = Gaussian().fit(store, Folds([range(40)]), CHANNELS[:1]).gaussian_threshold
    assert law is not None
    assert law(1 - probability) == pytest.approx(oracle_rippel.threshold(gaussian, probability), rel=1e-6)


def test_a_bundle_by_chi_square_says_so_and_scores_as_the_equations_do(tmp_path: Path) -> None:
    images = noise(0, 40)
    settings = Settings(Preprocess(SIDE, SIDE), Gaussian(), threshold_rule="chi-square", threads=1)
    bundle = calibrate(Drawn(images), two_levels(), settings, tmp_path / "bundle", lambda *_: None)
    point = bundle.manifest.working_point
    assert (point.method, point.threshold) == ("chi-square", point.chi_square)
    expected = oracle_rippel.score(
        levels_of(two_levels(), noise(1, 6)), oracle_rippel.fit(levels_of(two_levels(), images))
    )
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        np.testing.assert_allclose([engine(image).score for image in noise(1, 6)], expected, rtol=1e-4)
