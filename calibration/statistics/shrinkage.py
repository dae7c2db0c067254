"""Covariances shrunk toward a multiple of the identity (Ledoit and Wolf 2004), from vectors or from sums over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.moments import refuse_not_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

_BLOCK = 512  # channels


def shrink(covariance: Float64, fourth: float, count: float) -> float:
    """Shrink a covariance, in place, with the least expected error: (1 - a) S + a tr(S) / d I.

    Args:
        covariance: S, mean of the outer products of the centred vectors, (d, d).
        fourth: Mean of the squared squared lengths of the centred vectors.
        count: Number of vectors.

    Returns:
        a, from 0 to 1.

    References:
        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004, lemma 3.2.
    """
    squares = float(np.vdot(covariance, covariance))
    scale = float(np.trace(covariance)) / len(covariance)
    distance = squares - len(covariance) * scale**2
    share = min(1.0, max(0.0, (fourth - squares) / count / distance)) if distance > 0 else 1.0
    covariance *= 1 - share
    covariance[np.diag_indices_from(covariance)] += share * scale
    return share


@dataclass
class ShrinkageSums:
    """Sums over vectors x, or over y = x - origin, from which mean and shrunk covariance follow.

    Sums of some vectors can be taken from sums of all.

    Attributes:
        origin: (d,), near the mean, so that no digits are lost.
        count: Number of vectors.
        total: Sum of y, (d,).
        scatter: Sum of y y^T, (d, d), of which the lower half counts.
        cubes: Sum of |y|^2 y, (d,).
        fourth: Sum of |y|^4.
    """

    origin: Float64
    count: int
    total: Float64
    scatter: Float64
    cubes: Float64
    fourth: float

    @classmethod
    def around(cls, origin: Float64) -> ShrinkageSums:
        """Sums over no vectors."""
        channels = len(origin)
        return cls(origin, 0, np.zeros(channels), np.zeros((channels, channels)), np.zeros(channels), 0.0)

    def update(self, vectors: NDArray[np.floating]) -> None:
        """Add vectors, (n, d).

        Raises:
            DegenerateFeaturesError: A value is not finite.
        """
        refuse_not_finite(vectors)
        centred = vectors - self.origin
        squares = np.einsum("ij,ij->i", centred, centred)
        self.count += len(centred)
        self.total += centred.sum(axis=0)
        for block in self._blocks():  # of the lower half; a product of its own for all would be as large again
            self.scatter[block, : block.stop] += centred[:, block].T @ centred[:, : block.stop]
        self.cubes += squares @ centred
        self.fourth += float(squares @ squares)

    def without(self, part: ShrinkageSums) -> ShrinkageSums:
        """Sums over all vectors but some; the arrays of ``part`` are used for them."""
        return ShrinkageSums(
            self.origin,
            self.count - part.count,
            self.total - part.total,
            np.subtract(self.scatter, part.scatter, out=part.scatter),
            self.cubes - part.cubes,
            self.fourth - part.fourth,
        )

    def shrunk_covariance(self) -> tuple[Float64, float]:
        """The shrunk covariance around the mean, (d, d), in the place of the scatter, and the share a of ``shrink``."""
        step = self.total / self.count
        length = float(step @ step)
        covariance = np.divide(self.scatter, self.count, out=self.scatter)
        for block in self._blocks():
            covariance[: block.start, block] = covariance[block, : block.start].T
            corner = covariance[block, block]
            corner[:] = np.tril(corner) + np.tril(corner, -1).T
        # |y - s|^4 = (|y|^2 - 2 s.y + |s|^2)^2, summed term by term.
        along = float(step @ covariance @ step)
        fourth = self.fourth / self.count - 4 * float(step @ self.cubes) / self.count
        fourth += 4 * along + 2 * length * float(np.trace(covariance)) - 3 * length**2
        for block in self._blocks():
            covariance[block] -= np.outer(step[block], step)
        return covariance, shrink(covariance, fourth, self.count)

    def _blocks(self) -> list[slice]:
        channels = len(self.origin)
        return [slice(start, min(start + _BLOCK, channels)) for start in range(0, channels, _BLOCK)]
