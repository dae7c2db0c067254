"""Moments of cross-validation folds: those of all images, and of all but a fold, are sums of the folds' own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors.contract import Fit
from calibration.detectors.feature_store import batch_images
from calibration.detectors.kmeans import SAMPLE
from calibration.statistics.chi_square import simulated_threshold
from calibration.statistics.moments import merged
from calibration.statistics.scores import chi_square_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from calibration.detectors.contract import AdditiveDetector, Folds
    from calibration.detectors.feature_store import Features
    from calibration.detectors.head import Scorer, WhiteningHead
    from calibration.statistics.moments import Moments

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


def by_location(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of each location, (h * w, n, d)."""
    count, channels, height, width = reduced.shape
    return np.ascontiguousarray(reduced.reshape(count, channels, height * width).transpose(2, 0, 1))


def across_locations(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of one location, (1, n * h * w, d)."""
    vectors: Float32 = reduced.reshape(*reduced.shape[:2], -1).transpose(0, 2, 1).reshape(1, -1, reduced.shape[1])
    return vectors


def moments_and_fold_heads(
    detector: AdditiveDetector, store: Features, folds: Folds
) -> tuple[Moments, Iterator[WhiteningHead]]:
    """Moments of all images, from one pass over the features; and for each fold the head of all other images.

    A head is fitted when it is needed.
    """
    moments = [store.moments(group, detector.vectors) for group in folds.groups]
    heads = (detector.head(merged([*moments[:fold], *moments[fold + 1 :]])) for fold in range(len(moments)))
    return merged(moments), heads


def moment_fit(
    detector: AdditiveDetector, store: Features, total: Moments, held_out: Iterator[Scorer], *, leave_one_out: bool
) -> Fit:
    """The result of a fit to these moments of all images."""
    head = detector.head(total)
    law = partial(simulated_threshold, chi_square_scores(store.shape, head.order, head.smoothing))
    return Fit(head, held_out, detector.parameters(total), total.packed(), leave_one_out, law)


def moments_and_pooled_covariances(store: Features, folds: Folds) -> tuple[Moments, list[Float64]]:
    """Moments of all images, and for each fold the pooled covariance of all other images, (d, d)."""
    pooled = [_PooledMoments.of(store.moments(group, by_location)) for group in folds.groups]
    total = store.moments(folds.images, by_location)
    return total, [_PooledMoments.of(total).without(fold).covariance() for fold in pooled]


def pooled_covariance_without(moments: Moments, part: Moments) -> Float64:
    """The pooled covariance of all images of these moments but some, (d, d)."""
    return _PooledMoments.of(moments).without(_PooledMoments.of(part)).covariance()


@dataclass(frozen=True)
class _PooledMoments:
    """Moments with their scatter summed over locations: mean (locations, d), scatter (d, d)."""

    count: float
    squares: float
    mean: Float64
    scatter: Float64

    @classmethod
    def of(cls, moments: Moments) -> _PooledMoments:
        return cls(moments.count, moments.squares, moments.mean, moments.scatter.sum(axis=0))

    def without(self, fold: _PooledMoments) -> _PooledMoments:
        """The inverse of a merge."""
        count = self.count - fold.count
        mean = (self.count * self.mean - fold.count * fold.mean) / count
        step = fold.mean - mean
        between = (fold.count * count / self.count) * (step.T @ step)
        return _PooledMoments(count, self.squares - fold.squares, mean, self.scatter - fold.scatter - between)

    def covariance(self) -> Float64:
        """Mean over locations, (d, d)."""
        covariance: Float64 = self.scatter / (len(self.mean) * (self.count - self.squares / self.count))
        return covariance


def memory_mib(reduced: tuple[int, int, int], images: int, locations: int, modes: int = 1) -> float:
    """Memory of a fit: five folds, their sum, the sum of the others, a covariance, four whitenings and a batch.

    Includes the pooled covariances of the folds and, with several modes, three copies of the sample for k-means.
    """
    values = int(np.prod(reduced))
    batch = batch_images(reduced, images) * values
    sample = 0 if modes == 1 else 3 * min(SAMPLE, images) * values
    return ((10 * locations + 16) * reduced[0] ** 2 * 8 + (6 * batch + sample) * 4) / 2**20
