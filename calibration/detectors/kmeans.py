"""K-means at every location, for several kinds of good parts, with one covariance around the means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.feature_store import Features

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

SAMPLE = 256  # images for the search of the means
_SEED = 0
_STARTS = 4
_ROUNDS = 20
_MIN_SPREAD = 0.03  # of a channel, relative to the mean, so that noise of a dead channel has no influence


@dataclass(frozen=True)
class Modes:
    """K means per location, and the scatter of all vectors around the nearest mean.

    Attributes:
        means: (locations, K, d), float64.
        scatter: Centred outer products, (locations, d, d), float64.
        count: Number of vectors at each location.
    """

    means: Float64
    scatter: Float64
    count: int

    def covariance(self) -> Float64:
        """Covariance within the kinds, (locations, d, d)."""
        covariance: Float64 = self.scatter / max(1, self.count - self.means.shape[1])
        return covariance


def fit_modes(store: Features, images: Sequence[int], vectors: Callable[[Float32], Float32], kinds: int) -> Modes:
    """K-means on a sample at each location, then the scatter of all images.

    Hermann et al. 2022 have several means as well, but the same at all locations, see ``hotelling``.

    ``vectors`` turns features (n, d, h, w) into (locations, vectors, d).
    """
    random = np.random.default_rng(_SEED)
    chosen = np.sort(random.permutation(len(images))[:SAMPLE])
    sample = np.concatenate([vectors(batch) for batch in store.batches([images[each] for each in chosen])], axis=1)
    spread = np.sqrt(sample.var(axis=1, dtype=np.float64).mean(axis=0))
    scale = (1.0 / np.maximum(spread, max(_MIN_SPREAD * spread.mean(), np.finfo(np.float32).tiny))).astype(np.float32)
    sample *= scale
    started = (_lloyd(sample, _seeds(sample, kinds, random)) for _ in range(_STARTS))
    centres, _ = min(started, key=lambda found: found[1])
    return _assigned_moments(store, images, vectors, centres.astype(np.float32), scale)


def _seeds(sample: Float32, kinds: int, random: np.random.Generator) -> Float32:
    """K-means++ (Arthur and Vassilvitskii 2007) over whole images, so that a kind starts alike at all locations."""
    chosen = [int(random.integers(sample.shape[1]))]
    nearest = np.full(sample.shape[1], np.inf)
    while len(chosen) < kinds:
        last = sample[:, chosen[-1], None]
        nearest = np.minimum(
            nearest, sum(np.square(each - one).sum(axis=1) for each, one in zip(sample, last, strict=True))
        )
        total = nearest.sum()
        chances = nearest / total if total > 0 else np.full(len(nearest), 1 / len(nearest))
        chosen.append(int(random.choice(len(nearest), p=chances)))
    seeds: Float32 = sample[:, chosen].copy()
    return seeds


def _lloyd(sample: Float32, centres: Float32) -> tuple[Float32, float]:
    """Lloyd's iterations: improved centres, and the mean squared distance to the nearest."""
    total = 0.0
    for location, points in enumerate(sample):
        owners: NDArray[np.intp] | None = None
        for _ in range(_ROUNDS):
            squares = _squares(points, centres[location])
            nearest = squares.argmin(axis=1)
            if owners is not None and np.array_equal(nearest, owners):
                break
            owners = nearest
            for kind in np.unique(nearest):
                centres[location, kind] = points[nearest == kind].mean(axis=0)
        total += float(_squares(points, centres[location]).min(axis=1).mean())
    return centres, total


def _assigned_moments(
    store: Features,
    images: Sequence[int],
    vectors: Callable[[Float32], Float32],
    centres: Float32,
    scale: Float32,
) -> Modes:
    """Means and scatter of all images, each vector assigned to the nearest centre of the sample."""
    locations, kinds, channels = centres.shape
    counts = np.zeros((locations, kinds))
    sums = np.zeros((locations, kinds, channels))
    scatter = np.zeros((locations, channels, channels))
    origin = centres / scale  # outer products around a nearby point lose fewer digits
    count = 0
    for batch in store.batches(images):
        grouped = vectors(batch)
        count += grouped.shape[1]
        for location, points in enumerate(grouped):
            owners = _squares(points * scale, centres[location]).argmin(axis=1)
            shift = (points - origin[location, owners]).astype(np.float64)
            scatter[location] += shift.T @ shift
            np.add.at(sums[location], owners, shift)
            counts[location] += np.bincount(owners, minlength=kinds)
    means = sums / np.maximum(counts, 1.0)[:, :, None]
    for location in range(locations):
        scatter[location] -= (means[location] * counts[location][:, None]).T @ means[location]
    return Modes(origin + means, scatter, count)


def _squares(points: Float32, centres: Float32) -> Float32:
    """Squared distances, (vectors, K)."""
    squares: Float32 = np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)
    return squares
