"""Streaming, mergeable sufficient statistics: count, mean and centred outer products per location."""

from __future__ import annotations

from dataclasses import dataclass
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
        shift = vectors.mean(axis=1, dtype=np.float64) - self.mean
        centred = vectors.astype(np.float64) - (self.mean + shift)[:, None]
        for location, block in enumerate(centred):
            self.scatter[location] += block.T @ block
        self._shift(shift, added)

    def add(self, other: Moments) -> None:
        """Add the moments of other vectors at the same locations; the result is that of seeing all at once."""
        if not other.count:
            return
        self.scatter += other.scatter
        self._shift(other.mean - self.mean, other.count)

    def _shift(self, shift: Float64, added: int) -> None:
        """Move mean and scatter to the joint mean of ``count`` old and ``added`` new vectors."""
        total = self.count + added
        weight = self.count * added / total
        if weight:
            for location, step in enumerate(shift):
                self.scatter[location] += np.outer(step, step * weight)
        self.mean += shift * (added / total)
        self.count = total

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
    total = Moments.empty(*parts[0].mean.shape)
    for part in parts:
        total.add(part)
    return total
