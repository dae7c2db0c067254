"""Streaming, mergeable sufficient statistics: count, mean and centred outer products per location."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import DegenerateFeaturesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


@dataclass
class Moments:
    """What a fit needs to know about any number of feature vectors.

    Updates and sums are exact: any split of the data, in any order, gives the same moments up to rounding.

    Attributes:
        count: Vectors seen at each location.
        mean: (locations, d), float64.
        scatter: Centred outer products, summed: (locations, d, d), float64.

    References:
        Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    count: int
    mean: Float64
    scatter: Float64

    @classmethod
    def empty(cls, locations: int, channels: int) -> Moments:
        """Moments of nothing."""
        return cls(0, np.zeros((locations, channels)), np.zeros((locations, channels, channels)))

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Moments:
        """Moments of one batch of vectors, (locations, n, d)."""
        moments = cls.empty(vectors.shape[0], vectors.shape[2])
        moments.update(vectors)
        return moments

    def update(self, vectors: NDArray[np.floating]) -> None:
        """Add a batch.

        Args:
            vectors: (locations, n, d), any float type; summed in float64.

        Raises:
            DegenerateFeaturesError: A value is not finite.
        """
        if not np.isfinite(vectors).all():
            raise DegenerateFeaturesError(
                what="the backbone gave features that are not finite numbers",
                remedy="check the weights; an FP16 network may have overflowed",
            )
        added = vectors.shape[1]
        if not added:
            return
        mean = vectors.mean(axis=1, dtype=np.float64)
        step = mean - self.mean
        # The step to the new mean counts as one more centred vector, so that each scatter is touched once.
        rows = np.empty((added + 1, vectors.shape[2]))
        weighted = self._weighted(step, added)
        for location, block in enumerate(vectors):
            rows[:-1] = block - mean[location]
            rows[-1] = weighted[location]
            self.scatter[location] += rows.T @ rows
        self._move(step, added)

    def add(self, other: Moments) -> None:
        """Add the moments of other vectors at the same locations; the result is that of seeing all at once."""
        if not other.count:
            return
        step = other.mean - self.mean
        for location, row in enumerate(self._weighted(step, other.count)):
            self.scatter[location] += other.scatter[location] + np.outer(row, row)
        self._move(step, other.count)

    def _weighted(self, step: Float64, added: int) -> Float64:
        """The vectors whose outer products are the scatter between the means of old and new, (locations, d)."""
        return step * sqrt(self.count * added / (self.count + added))

    def _move(self, step: Float64, added: int) -> None:
        """Move the mean to that of ``count`` old and ``added`` new vectors."""
        self.count += added
        self.mean += step * (added / self.count)

    def covariance(self) -> Float64:
        """Unbiased covariance per location, (locations, d, d).

        Raises:
            DegenerateFeaturesError: Fewer than two vectors.
        """
        if self.count <= 1:
            raise DegenerateFeaturesError(
                what=f"a covariance needs at least two images, got {self.count}",
                remedy="give more good images",
            )
        return self.scatter / (self.count - 1)

    def packed(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Arrays for a file; the scatter as its upper triangle, since it is symmetric."""
        rows, columns = np.triu_indices(self.mean.shape[1])
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter[:, rows, columns]}

    @classmethod
    def unpacked(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Moments:
        """The inverse of ``packed``."""
        mean = arrays["mean"]
        locations, channels = mean.shape
        rows, columns = np.triu_indices(channels)
        scatter = np.zeros((locations, channels, channels))
        scatter[:, rows, columns] = arrays["scatter"]
        scatter[:, columns, rows] = arrays["scatter"]
        return cls(int(arrays["count"]), mean.copy(), scatter)


def merged(parts: list[Moments]) -> Moments:
    """The moments of all parts together; the parts stay as they are.

    Args:
        parts: At least one, all of the same locations and channels.
    """
    first, *others = parts
    total = Moments(first.count, first.mean.copy(), first.scatter.copy())
    for part in others:
        total.add(part)
    return total
