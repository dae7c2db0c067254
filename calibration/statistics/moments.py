"""Streaming, mergeable sufficient statistics: count, mean and centred outer products per location."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import DegenerateFeaturesError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


@dataclass
class Moments:
    """What a fit needs to know about any number of feature vectors.

    Updates and sums are exact: any split of the data, in any order, gives the same moments up to rounding. Vectors may
    weigh less than 1, see ``weighted``; the covariance is unbiased for any weights.

    Attributes:
        count: Sum of the vectors' weights at each location: their number, where all weigh 1.
        mean: (locations, d), float64.
        scatter: Weighted centred outer products, summed: (locations, d, d), float64.
        squares: Sum of the squared weights.

    References:
        Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    count: float
    mean: Float64
    scatter: Float64
    squares: float

    @classmethod
    def empty(cls, locations: int, channels: int) -> Moments:
        """Moments of nothing."""
        return cls(0, np.zeros((locations, channels)), np.zeros((locations, channels, channels)), 0)

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
        self.squares += added

    def add(self, other: Moments) -> None:
        """Add the moments of other vectors at the same locations; the result is that of seeing all at once."""
        if not other.count:
            return
        step = other.mean - self.mean
        for location, row in enumerate(self._weighted(step, other.count)):
            self.scatter[location] += other.scatter[location] + np.outer(row, row)
        self._move(step, other.count)
        self.squares += other.squares

    def weighted(self, weight: float) -> Moments:
        """The moments if each vector weighed so many times what it does: a forgetting factor.

        It multiplies n and the outer products; mean and covariance stay as they are, and count for less in a sum.

        Args:
            weight: Above 0; 1 changes nothing.
        """
        return Moments(weight * self.count, self.mean.copy(), weight * self.scatter, weight**2 * self.squares)

    @property
    def effective_count(self) -> float:
        """So many vectors of equal weight say as much: (sum of w)^2 / sum of w^2 (Kish 1965); n where all weigh 1."""
        return self.count**2 / self.squares

    @property
    def degrees_of_freedom(self) -> float:
        """What the scatter is divided by: sum of w - sum of w^2 / sum of w; n - 1 where all weigh 1."""
        return self.count - self.squares / self.count

    def _weighted(self, step: Float64, added: float) -> Float64:
        """The vectors whose outer products are the scatter between the means of old and new, (locations, d)."""
        return step * sqrt(self.count * added / (self.count + added))

    def _move(self, step: Float64, added: float) -> None:
        """Move the mean to that of ``count`` old and ``added`` new vectors."""
        self.count += added
        self.mean += step * (added / self.count)

    def covariance(self) -> Float64:
        """Unbiased covariance per location, (locations, d, d).

        Raises:
            DegenerateFeaturesError: Fewer than two vectors.
        """
        if not self.count or self.effective_count <= 1:
            raise DegenerateFeaturesError(
                what=f"a covariance needs at least two images, got {self.count:g}",
                remedy="give more good images",
            )
        return self.scatter / self.degrees_of_freedom

    def packed(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Arrays for a file; the scatter as its upper triangle, since it is symmetric."""
        rows, columns = np.triu_indices(self.mean.shape[1])
        return {
            "count": np.array(self.count),
            "squares": np.array(self.squares),
            "mean": self.mean,
            "scatter": self.scatter[:, rows, columns],
        }

    @classmethod
    def unpacked(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Moments:
        """The inverse of ``packed``; arrays of older software, without squared weights, are of vectors that weigh 1."""
        mean = arrays["mean"]
        locations, channels = mean.shape
        rows, columns = np.triu_indices(channels)
        scatter = np.zeros((locations, channels, channels))
        scatter[:, rows, columns] = arrays["scatter"]
        scatter[:, columns, rows] = arrays["scatter"]
        count = arrays["count"].item()
        return cls(count, mean.copy(), scatter, arrays["squares"].item() if "squares" in arrays else count)


def merged(parts: Sequence[Moments]) -> Moments:
    """The moments of all parts together; the parts stay as they are.

    Args:
        parts: At least one, all of the same locations and channels.
    """
    first, *others = parts
    total = Moments(first.count, first.mean.copy(), first.scatter.copy(), first.squares)
    for part in others:
        total.add(part)
    return total
