"""Moments of feature vectors that can be streamed and merged: count, mean and scatter per location."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import BundleError, DegenerateFeaturesError
from calibration.statistics.location_threads import in_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


@dataclass
class Moments:
    """Sufficient statistics of any number of feature vectors.

    Updates and sums are exact: any split of the data, in any order, gives the same moments up to rounding. Vectors may
    have weights below 1, see ``weighted``; the covariance is unbiased for any weights.

    Attributes:
        count: Sum of the vectors' weights at each location: their number if all weigh 1.
        mean: (locations, d), float64.
        scatter: Sum of weighted centred outer products, (locations, d, d), float64.
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
        """Moments of no vectors."""
        return cls(0, np.zeros((locations, channels)), np.zeros((locations, channels, channels)), 0)

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Moments:
        """Moments of a batch of vectors, (locations, n, d)."""
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
        refuse_not_finite(vectors)
        added = vectors.shape[1]
        if not added:
            return
        mean = vectors.mean(axis=1, dtype=np.float64)
        step = mean - self.mean
        weighted = self._weighted(step, added)

        def update_scatter(block: slice) -> None:
            # The step to the new mean counts as one more centred vector, so that each scatter is updated once.
            rows = np.empty((added + 1, vectors.shape[2]))
            for location in range(block.start, block.stop):
                rows[:-1] = vectors[location] - mean[location]
                rows[-1] = weighted[location]
                self.scatter[location] += rows.T @ rows

        in_blocks(update_scatter, len(vectors))
        self._move(step, added)
        self.squares += added

    def add(self, other: Moments) -> None:
        """Add the moments of other vectors at the same locations."""
        if not other.count:
            return
        step = other.mean - self.mean
        weighted = self._weighted(step, other.count)

        def add_scatter(block: slice) -> None:
            rows = weighted[block]
            self.scatter[block] += other.scatter[block] + rows[:, :, None] * rows[:, None]

        in_blocks(add_scatter, len(weighted))
        self._move(step, other.count)
        self.squares += other.squares

    def weighted(self, weight: float) -> Moments:
        """The moments with each vector's weight multiplied by this factor, above 0.

        Mean and covariance stay the same, but count for less in a sum: with 0.5, two vectors count as one.
        """
        return Moments(weight * self.count, self.mean.copy(), weight * self.scatter, weight**2 * self.squares)

    @property
    def effective_count(self) -> float:
        """Effective sample size, (sum of w)^2 / sum of w^2 (Kish 1965); n if all weights are 1."""
        return self.count**2 / self.squares

    @property
    def degrees_of_freedom(self) -> float:
        """Divisor of the scatter, sum of w - sum of w^2 / sum of w; n - 1 if all weights are 1."""
        return self.count - self.squares / self.count

    def _weighted(self, step: Float64, added: float) -> Float64:
        """Vectors whose outer products are the scatter between the old and the new mean, (locations, d)."""
        return step * sqrt(self.count * added / (self.count + added))

    def _move(self, step: Float64, added: float) -> None:
        """Move the mean to that of the old and the added vectors."""
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
        """Arrays for a file, with the upper triangle of the symmetric scatter."""
        rows, columns = np.triu_indices(self.mean.shape[1])
        return {
            "count": np.array(self.count),
            "squares": np.array(self.squares),
            "mean": self.mean,
            "scatter": self.scatter[:, rows, columns],
        }

    @classmethod
    def unpacked(cls, arrays: Mapping[str, NDArray[Any]]) -> Moments:
        """The inverse of ``packed``; without squared weights, as older software wrote it, all weights are 1.

        Raises:
            BundleError: The arrays do not belong together.
        """
        mean, count = arrays["mean"], arrays["count"]
        locations, channels = mean.shape if mean.ndim == 2 else (0, 0)  # noqa: PLR2004
        sizes = (arrays["scatter"].shape, count.size, arrays.get("squares", count).size)
        if not locations or sizes != ((locations, channels * (channels + 1) // 2), 1, 1):
            raise BundleError(
                what="the arrays of the statistics do not belong together", remedy="copy the bundle again, or calibrate"
            )
        rows, columns = np.triu_indices(channels)
        scatter = np.zeros((locations, channels, channels))
        scatter[:, rows, columns] = arrays["scatter"]
        scatter[:, columns, rows] = arrays["scatter"]
        return cls(count.item(), mean.copy(), scatter, arrays.get("squares", count).item())


def merged(parts: Sequence[Moments]) -> Moments:
    """The moments of all parts together.

    Args:
        parts: One or more, of the same locations and channels; they stay as they are.
    """
    first, *others = parts
    total = Moments(first.count, first.mean.copy(), first.scatter.copy(), first.squares)
    for part in others:
        total.add(part)
    return total


def refuse_not_finite(features: NDArray[np.floating]) -> None:
    """Raise DegenerateFeaturesError if a feature is not a finite number."""
    if not np.isfinite(features).all():
        raise DegenerateFeaturesError(
            what="the backbone gave features that are not finite numbers",
            remedy="check the weights; an FP16 network may have overflowed",
        )


def identical_features_error() -> DegenerateFeaturesError:
    """The error for images whose features do not vary."""
    return DegenerateFeaturesError(
        what="the features of all images are the same: how good parts vary cannot be estimated",
        remedy="give images of different good parts, not copies of one",
    )
