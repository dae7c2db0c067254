"""PaDiM: the paper's Gaussian at every location, and its relation to ``mean_shift``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.head import WhiteningHead
from calibration.detectors.padim import Padim
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.imaging.preprocess import Image, Preprocess
from calibration.network.fusion import feature_network
from calibration.statistics.covariance import shrunk_whitening
from calibration.statistics.moments import Moments
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.levels import CHANNELS, levels_of, two_levels
from tests.support.oracles import NaiveDistance
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from pathlib import Path

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def drawn_features(count: int = 40) -> Float32:
    """(n, 6, 3, 2), correlated differently at each place."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(3, 2, 6, 6))
    return np.asarray(np.einsum("nhwc,hwcd->ndhw", random.normal(size=(count, 3, 2, 6)), mixing), np.float32)


def fitted(reduced: Float32, folder: Path) -> tuple[WhiteningHead, Moments]:
    with FeatureStore(folder, reduced.shape[1:]) as store:
        for each in reduced:
            store.append(each)
        fit = Padim(dimensions=None).fit(store, Folds([range(10), range(10, len(reduced))]), [reduced.shape[1]])
        moments = Moments.unpacked({name: np.asarray(array) for name, array in fit.statistics.items()})
    assert isinstance(fit.head, WhiteningHead)
    return fit.head, moments


def test_the_map_is_the_mahalanobis_distance_of_the_paper(tmp_path: Path) -> None:
    good, tested = drawn_features(), drawn_features(45)[40:]
    head, _ = fitted(good, tmp_path)
    naive = NaiveDistance.of_padim(good.astype(np.float64))
    seen = head.scores(tested)
    for number, reduced in enumerate(tested.astype(np.float64)):
        expected = naive.score_map(reduced)
        np.testing.assert_allclose(seen.map[number], expected, rtol=1e-4)
        assert seen.score[number] == seen.map[number].max()


def test_it_is_mean_shift_at_alpha_zero_with_the_regulariser_of_the_paper(tmp_path: Path) -> None:
    """Sigma = (1 - alpha) C + alpha T as alpha goes to 0, where alpha T is held at 0.01 I."""
    head, moments = fitted(drawn_features(), tmp_path)
    alpha = 1e-9
    whitening = shrunk_whitening(moments.covariance(), 0.01 / alpha * np.eye(6), alpha)
    family = WhiteningHead(moments.mean.astype(np.float32), whitening)
    tested = drawn_features(45)[40:]
    np.testing.assert_allclose(head.scores(tested).map, family.scores(tested).map, rtol=1e-5)


def copied_levels(pictures: list[Image]) -> Float64:
    """The levels of all pictures, those of the coarse grid copied to the cells that they cover: (n, d, h, w)."""
    fine, coarse = levels_of(two_levels(), pictures)
    factor = fine.shape[2] // coarse.shape[2]
    return np.concatenate([fine, coarse.repeat(factor, axis=2).repeat(factor, axis=3)], axis=1)


@pytest.mark.parametrize("dimensions", [1, 7, 16, 100, None])
def test_fit_and_inspection_use_the_same_channels(dimensions: int | None, tmp_path: Path) -> None:
    """The network's scores follow from its own features and the channels of the fit."""
    detector, backbone = Padim(dimensions), two_levels()
    good = [washer(number) for number in range(20)]
    bundle = calibrate(
        Drawn(good), backbone, Settings(Preprocess(SIDE, SIDE), detector, threads=1), tmp_path / "b", lambda *_: None
    )
    features = copied_levels(good)
    extractor = feature_network(backbone, detector, divide_brightness=False)
    with OnnxRuntimeEngine(extractor.SerializeToString(), 1) as engine:
        reduced = np.stack([engine.reduced(picture) for picture in good])
    kept = min(dimensions or 16, sum(CHANNELS))
    distances = np.abs(reduced[:, :, None] - features[:, None]).max(axis=(0, 3, 4))
    chosen = distances.argmin(axis=1)
    assert len(set(chosen.tolist())) == len(chosen) == kept
    assert distances.min(axis=1).max() <= 1e-5 * features.max()
    assert bundle.manifest.detector.parameters == {"dimensions": kept}
    naive = NaiveDistance.of_padim(features[:, chosen])
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        for picture in (washer(60), washer(61, scratched=True)):
            seen, expected = engine(picture), naive.score_map(copied_levels([picture])[0, chosen])
            np.testing.assert_allclose(seen.map, expected, rtol=1e-4, atol=1e-4 * expected.max())
            assert seen.score == pytest.approx(expected.max(), rel=1e-4)


def test_the_choice_of_channels_is_the_same_every_time() -> None:
    def network() -> bytes:
        return feature_network(two_levels(), Padim(8), divide_brightness=False).SerializeToString(deterministic=True)

    assert network() == network()


@pytest.mark.parametrize("dimensions", [0, -1])
def test_no_dimension_at_all_is_refused(dimensions: int) -> None:
    with pytest.raises(SettingError, match=f"dimensions = {dimensions} is too small"):
        Padim(dimensions)
