"""Features on disk come back as they were, few at a time where one is large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.detectors.feature_store import FeatureStore, batch_images
from calibration.errors import DegenerateFeaturesError

if TYPE_CHECKING:
    from pathlib import Path


def test_features_come_back_in_the_requested_order(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(150, 3, 4, 5)).astype(np.float32)
    with FeatureStore(tmp_path, (3, 4, 5)) as store:
        for each in features:
            store.append(each)
        assert store.count == 150
        indices = [149, *range(0, 140, 2), 3]
        batches = list(store.batches(indices))
    assert [len(batch) for batch in batches] == [64, 8]
    np.testing.assert_array_equal(np.concatenate(batches), features[indices])


def test_large_features_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    shape = (1536, 28, 28)
    with FeatureStore(tmp_path, shape) as store:
        for number in range(5):
            store.append(np.full(shape, number, np.float32))
        batches = list(store.batches(range(5)))
    assert max(batch.nbytes for batch in batches) <= 16 * 2**20
    assert [batch[0, 0, 0, 0] for batch in batches] == [0, 3]


@pytest.mark.parametrize(
    ("shape", "images", "size"),
    [((192, 14, 14), 700, 64), ((192, 14, 14), 9, 9), ((1536, 28, 28), 700, 3), ((1536, 280, 280), 9, 1)],
)
def test_the_size_of_a_batch_is_limited_by_memory(shape: tuple[int, int, int], images: int, size: int) -> None:
    assert batch_images(shape, images) == size


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    features = np.zeros((2, 1, 1), np.float32)
    features[1] = value
    with FeatureStore(tmp_path, (2, 1, 1)) as store, pytest.raises(DegenerateFeaturesError, match="not finite"):
        store.append(features)


@pytest.mark.parametrize("different", [None, 0, 1, 5])
def test_only_copies_are_refused(tmp_path: Path, different: int | None) -> None:
    with FeatureStore(tmp_path, (2, 1, 1)) as store:
        for number in range(6):
            store.append(np.full((2, 1, 1), float(number == different), np.float32))
        if different is None:
            with pytest.raises(DegenerateFeaturesError, match="copies of one"):
                store.refuse_copies()
        else:
            store.refuse_copies()
