"""Good parts of several kinds on one line: K means at every location, with one covariance around them."""

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

SAMPLE = 256  # images that the means are looked for in
_SEED = 0
_STARTS = 4
_ROUNDS = 20
_LEAST_SPREAD = 0.03  # of a channel, as a share of the mean spread: noise of a dead channel must not decide


@dataclass(frozen=True)
class Modes:
    """K means per location, and the scatter of all vectors around the nearest.

    Attributes:
        means: (locations, K, d), float64.
        scatter: Centred outer products, (locations, d, d), float64.
        count: Vectors at each location.
    """

    means: Float64
    scatter: Float64
    count: int

    def covariance(self) -> Float64:
        """Within the kinds, (locations, d, d)."""
        covariance: Float64 = self.scatter / max(1, self.count - self.means.shape[1])
        return covariance


def fit_modes(store: Features, images: Sequence[int], vectors: Callable[[Float32], Float32], kinds: int) -> Modes:
    """K-means at each location (Hermann et al. 2022, several means), on a sample; then the scatter over all images.

    Args:
        store: Reduced features.
        images: Which of them.
        vectors: (n, d, h, w) to (locations, vectors, d).
        kinds: K.
    """
    random = np.random.default_rng(_SEED)
    chosen = np.sort(random.permutation(len(images))[:SAMPLE])
    sample = np.concatenate([vectors(batch) for batch in store.batches([images[each] for each in chosen])], axis=1)
    spread = np.sqrt(sample.var(axis=1, dtype=np.float64).mean(axis=0))
    scale = (1.0 / np.maximum(spread, max(_LEAST_SPREAD * spread.mean(), np.finfo(np.float32).tiny))).astype(np.float32)
    sample *= scale
    started = (_lloyd(sample, _seeds(sample, kinds, random)) for _ in range(_STARTS))
    centres, _ = min(started, key=lambda found: found[1])
    return _around(store, images, vectors, centres.astype(np.float32), scale)


def _seeds(sample: Float32, kinds: int, random: np.random.Generator) -> Float32:
    """K-means++ (Arthur and Vassilvitskii 2007) over images as wholes, so that a kind starts as one everywhere."""
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
    """Better centres, and the mean square distance to the nearest."""
    total = 0.0
    for place, points in enumerate(sample):
        owners: NDArray[np.intp] | None = None
        for _ in range(_ROUNDS):
            squares = _squares(points, centres[place])
            nearest = squares.argmin(axis=1)
            if owners is not None and np.array_equal(nearest, owners):
                break
            owners = nearest
            for kind in np.unique(nearest):
                centres[place, kind] = points[nearest == kind].mean(axis=0)
        total += float(_squares(points, centres[place]).min(axis=1).mean())
    return centres, total


def _around(
    store: Features,
    images: Sequence[int],
    vectors: Callable[[Float32], Float32],
    centres: Float32,
    scale: Float32,
) -> Modes:
    """Means and scatter of all images, each vector with the nearest of the sample's centres."""
    locations, kinds, channels = centres.shape
    counts = np.zeros((locations, kinds))
    sums = np.zeros((locations, kinds, channels))
    scatter = np.zeros((locations, channels, channels))
    origin = centres / scale  # outer products around a nearby point keep their digits
    count = 0
    for batch in store.batches(images):
        grouped = vectors(batch)
        count += grouped.shape[1]
        for place, points in enumerate(grouped):
            owners = _squares(points * scale, centres[place]).argmin(axis=1)
            shift = (points - origin[place, owners]).astype(np.float64)
            scatter[place] += shift.T @ shift
            np.add.at(sums[place], owners, shift)
            counts[place] += np.bincount(owners, minlength=kinds)
    means = sums / np.maximum(counts, 1.0)[:, :, None]
    for place in range(locations):
        scatter[place] -= (means[place] * counts[place][:, None]).T @ means[place]
    return Modes(origin + means, scatter, count)


def _squares(points: Float32, centres: Float32) -> Float32:
    """(vectors, K)."""
    squares: Float32 = np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)
    return squares
