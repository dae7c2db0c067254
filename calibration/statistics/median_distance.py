"""Distance from the median image: what no minority of strays can hide, however alike they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

_NORMAL = 1.4826  # standard deviations in a median absolute deviation, of normally distributed values
_LEAST_SHARE, _ROUNDING = 0.1, 1e-3


@dataclass(frozen=True)
class MedianDistance:
    """Scores images by how many spreads their features lie from the median of all images.

    score = mean over features of ((x - median) / s)^2, where s is 1.4826 median absolute deviations, and at least a
    tenth of what it is at the channel's other locations and a thousandth of the median: rounding does not count.

    Two strays that look the same vouch for each other in a covariance, and score low even where each is held out: they
    mask each other. Median and median absolute deviation stay right until half of the images are strays.

    Attributes:
        median: (d, h, w), float32.
        spread: (d, h, w), float32, above 0.

    References:
        Rousseeuw, Croux, "Alternatives to the median absolute deviation", 1993.
        Rousseeuw, van Zomeren, "Unmasking multivariate outliers and leverage points", 1990.
    """

    median: Float32
    spread: Float32

    @classmethod
    def of(cls, sample: Float32) -> MedianDistance:
        """From the features of a sample of the images, (n, d, h, w)."""
        median = np.median(sample, axis=0)
        spread = _NORMAL * np.median(np.abs(sample - median), axis=0)
        least = np.maximum(_LEAST_SHARE * _root_mean_square(spread), _ROUNDING * _root_mean_square(median))
        least[least == 0.0] = np.inf  # a channel that is zero says nothing
        return cls(median.astype(np.float32), np.maximum(spread, least).astype(np.float32))

    def scores(self, reduced: Float32) -> Scores:
        """Scores of images, (n, d, h, w)."""
        squares = np.square((reduced - self.median) / self.spread)
        score_map = squares.mean(axis=1)
        return Scores(score_map.mean(axis=(1, 2)), score_map)


def _root_mean_square(values: Float32) -> Float32:
    """Over the locations of each channel, (d, 1, 1)."""
    root: Float32 = np.sqrt(np.mean(np.square(values), axis=(1, 2), keepdims=True))
    return root
