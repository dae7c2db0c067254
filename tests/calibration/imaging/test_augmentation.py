from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.detectors.contract import Folds
from calibration.detectors.cross_validation import augmented_folds, make_folds
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.imaging.augmentation import augmented
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.levels import two_levels
from tests.support.stored import stored
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.detectors.contract import Detector
    from calibration.imaging.preprocess import Image

COUNT, COPIES = 15, 2


def settings(detector: Detector, augment: int = COPIES) -> Settings:
    return Settings(Preprocess(SIDE, SIDE), detector, augment=augment, threads=1)


def test_an_augmented_frame_is_similar_to_the_frame_and_never_the_same() -> None:
    frame, random = washer(0), np.random.default_rng(0)
    copies = [augmented(frame, random) for _ in range(5)]
    for copy in copies:
        assert copy.shape == frame.shape
        assert copy.dtype == np.uint8
        difference = np.abs(copy.astype(int) - frame.astype(int)).mean()
        assert 0 < difference < np.abs(washer(1).astype(int) - 255 + frame.astype(int)).mean() / 4
    assert len({copy.tobytes() for copy in copies}) == len(copies)


def test_an_image_is_held_out_together_with_its_copies() -> None:
    folds = make_folds(7, sequential=False)
    rows = augmented_folds(folds, 2)
    assert rows.images == list(range(21))
    assert not rows.independent
    for part, others in zip(folds.groups, rows.groups, strict=True):
        assert sorted({row // 3 for row in others}) == list(part)
    assert augmented_folds(folds, 0) is folds


def copies_of(picture: Image) -> list[Image]:
    """The copies depend on the image alone."""
    random = np.random.default_rng(zlib.crc32(picture.tobytes()))
    return [augmented(picture, random) for _ in range(COPIES)]


@pytest.mark.parametrize("detector", [MeanShift(), Gaussian()], ids=lambda each: each.name)
def test_good_scores_are_those_of_the_images_without_their_copies(detector: Detector, tmp_path: Path) -> None:
    good = [washer(number) for number in range(COUNT)]
    bundle = calibrate(Drawn(good), two_levels(), settings(detector), tmp_path / "b", lambda *_: None)
    scores = bundle.reference()["good_scores"]
    assert bundle.manifest.images.count == len(scores) == COUNT
    assert bundle.manifest.augment == COPIES
    network = feature_network(two_levels(), detector, divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        reduced = np.stack([engine.reduced(each) for picture in good for each in (picture, *copies_of(picture))])
    for part in make_folds(COUNT, sequential=False).groups:
        rows = [index * (1 + COPIES) + row for index in part for row in range(1 + COPIES)]
        others = np.delete(reduced, rows, axis=0)
        with stored(others, tmp_path) as store:
            head = detector.fit(store, Folds([range(9), range(9, len(others))]), two_levels().level_channels).head
        expected = head.scores(reduced[[index * (1 + COPIES) for index in part]]).score
        np.testing.assert_allclose(scores[list(part)], expected, rtol=1e-4)


def test_a_negative_number_of_copies_is_refused() -> None:
    with pytest.raises(SettingError, match=r"augment = -1 copies makes no sense"):
        settings(MeanShift(), -1)
