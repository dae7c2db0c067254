"""Moments of the folds, from which those of all images, and of all but one fold, are sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.feature_store import batch_images
from calibration.moments import Moments, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.feature_store import FeatureStore

    Float32 = NDArray[np.float32]


def by_location(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of each place, (h * w, n, d)."""
    count, channels, height, width = reduced.shape
    return np.ascontiguousarray(reduced.reshape(count, channels, height * width).transpose(2, 0, 1))


def all_together(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of one place, (1, n * h * w, d)."""
    together: Float32 = reduced.reshape(*reduced.shape[:2], -1).transpose(0, 2, 1).reshape(1, -1, reduced.shape[1])
    return together


def fold_moments(
    store: FeatureStore, folds: Sequence[Sequence[int]], vectors: Callable[[Float32], Float32] = by_location
) -> list[Moments]:
    """Moments of each fold, in one look at the features."""
    return [_moments(store, fold, vectors) for fold in folds]


def without_each(parts: list[Moments]) -> Iterator[Moments]:
    """For each part, the moments of all others, one at a time."""
    for held in range(len(parts)):
        yield merged([*parts[:held], *parts[held + 1 :]])


def memory_mib(reduced: tuple[int, int, int], images: int, locations: int) -> float:
    """Five folds, their sum, the sum of the others, a covariance and four whitenings; and a batch being added."""
    batch = batch_images(reduced, images) * int(np.prod(reduced))
    return (10 * locations * reduced[0] ** 2 * 8 + 6 * batch * 4) / 2**20


def _moments(store: FeatureStore, images: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
    batches = (vectors(batch) for batch in store.batches(images))
    moments = Moments.of(next(batches))
    for batch in batches:
        moments.update(batch)
    return moments
