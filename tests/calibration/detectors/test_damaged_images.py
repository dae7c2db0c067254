"""Images with synthetic defects are scored by statistics that have not seen the images without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.detectors.contract import Folds
from calibration.detectors.cross_validation import out_of_fold_scores
from calibration.detectors.damaged_images import DamagedImages
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.fold_moments import by_location
from calibration.detectors.mean_shift import MeanShift
from calibration.imaging.synthetic_defects import DIFFERENT, KINDS
from calibration.progress import silent
from calibration.statistics.moments import Moments
from tests.support.stored import stored

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (6, 3, 2)
PICTURE = np.zeros((20, 20, 3), np.uint8)


def drawn(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(count, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("independent", [True, False], ids=["left out alone", "left out with its fold"])
def test_each_is_scored_without_its_original(independent: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Against the head that is fitted without the original, or without its fold."""
    good, change = drawn(25), 3 * drawn(5)
    folds = Folds([list(range(start, 25, 5)) for start in range(5)], independent)
    detector = MeanShift(alpha=0.3)
    with stored(good, tmp_path) as store, FeatureStore(tmp_path, SHAPE) as damaged_store:
        damaged = DamagedImages(damaged_store)
        for number, original in enumerate((24, 3, 17, 3, 8)):
            damaged.add(original, number, (PICTURE, PICTURE), good[original] + change[number])
        fit = detector.fit(store, folds, [SHAPE[0]])
        out_of_fold_scores(store, folds, 1, fit, damaged, silent)
        found = damaged.arrays(20)["defect_scores"]
        for number, original in enumerate((24, 3, 17, 3, 8)):
            fold = next(group for group in folds.groups if original in group)
            left_out = [original] if independent else list(fold)
            head = detector.head(Moments.of(by_location(np.delete(good, left_out, axis=0))))
            expected = head.scores((good[original] + change[number])[None]).score[0]
            # Left out alone, the pooled covariance is that of the other folds.
            assert found[number] == pytest.approx(expected, rel=0.15 if independent else 1e-5)


def test_arrays_are_in_the_order_of_the_numbers_and_have_a_picture_of_each_different_one(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, SHAPE) as store:
        damaged = DamagedImages(store)
        for number in reversed(range(2 * DIFFERENT)):
            damaged.add(0, number, (PICTURE, PICTURE), np.full(SHAPE, number, np.float32))
        arrays = damaged.arrays(640)
    assert arrays["defect_kinds"][: len(KINDS)].tolist() == list(KINDS)
    assert arrays["defect_px"][::4].tolist() == [10, 20, 40, 80, 160] * 2
    assert arrays["defect_pictures"].shape == (DIFFERENT, 96, 96, 3)
