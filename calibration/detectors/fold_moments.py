"""What is learnt from moments: those of all images, and of all but a fold, are sums of those of the folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors.feature_store import batch_images
from calibration.detectors.kmeans import SAMPLE
from calibration.statistics.moments import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.statistics.moments import Moments

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


def by_location(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of each place, (h * w, n, d)."""
    count, channels, height, width = reduced.shape
    return np.ascontiguousarray(reduced.reshape(count, channels, height * width).transpose(2, 0, 1))


def across_locations(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of one place, (1, n * h * w, d)."""
    together: Float32 = reduced.reshape(*reduced.shape[:2], -1).transpose(0, 2, 1).reshape(1, -1, reduced.shape[1])
    return together


def of_folds(store: Features, folds: Folds, vectors: Callable[[Float32], Float32] = by_location) -> list[Moments]:
    """Moments of each fold, in one look at the features."""
    return [store.moments(fold, vectors) for fold in folds.groups]


def of_all(store: Features, folds: Folds) -> tuple[Moments, list[Float64]]:
    """Moments of all images, and for each fold the pooled covariance without it, (d, d)."""
    parts = [_Pooled.of(store.moments(fold, by_location)) for fold in folds.groups]
    total = store.moments(folds.images, by_location)
    return total, [_Pooled.of(total).without(part).covariance() for part in parts]


@dataclass(frozen=True)
class _Pooled:
    """Moments with their scatter summed over locations: (locations, d) and (d, d)."""

    count: float
    mean: Float64
    scatter: Float64

    @classmethod
    def of(cls, given: Moments) -> _Pooled:
        return cls(given.count, given.mean, given.scatter.sum(axis=0))

    def without(self, part: _Pooled) -> _Pooled:
        """The inverse of a merge."""
        count = self.count - part.count
        mean = (self.count * self.mean - part.count * part.mean) / count
        step = part.mean - mean
        between = (part.count * count / self.count) * (step.T @ step)
        return _Pooled(count, mean, self.scatter - part.scatter - between)

    def covariance(self) -> Float64:
        """Mean over locations, (d, d)."""
        covariance: Float64 = self.scatter / (len(self.mean) * (self.count - 1))
        return covariance


def without_each(parts: list[Moments]) -> Iterator[Moments]:
    """For each part, the moments of all others, one at a time."""
    for held in range(len(parts)):
        yield merged([*parts[:held], *parts[held + 1 :]])


def memory_mib(reduced: tuple[int, int, int], images: int, locations: int, modes: int = 1) -> float:
    """Five folds, their sum, the sum of the others, a covariance and four whitenings; and a batch being added.

    Pooled covariances of folds, too, and where there are several means, the sample that they are looked for in, three
    times.
    """
    picture = int(np.prod(reduced))
    batch = batch_images(reduced, images) * picture
    sample = 0 if modes == 1 else 3 * min(SAMPLE, images) * picture
    return ((10 * locations + 16) * reduced[0] ** 2 * 8 + (6 * batch + sample) * 4) / 2**20
