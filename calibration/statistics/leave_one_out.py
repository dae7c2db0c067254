"""Scores of images as if the statistics had not seen them, without another fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.covariance import whitening
from calibration.statistics.scores import Scores, generalised_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.statistics.moments import Moments

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class LeaveOneOut:
    """Takes each image that it scores out of the mean and the covariance of every location first.

    With v = P - mu, out of n images, and Sigma = w C + B:

        mu without it     P - mu' = n / (n - 1) v
        C without it      C' = (n - 1) / (n - 2) C - n / ((n - 1) (n - 2)) v v^T
        Sigma' = A - c v v^T,  A = w (n - 1) / (n - 2) C + B,  c = w n / ((n - 1) (n - 2))
        v^T Sigma'^-1 v = t / (1 - c t),  t = v^T A^-1 v        (Sherman and Morrison 1950)

    Of images that weigh u, n is the sum of all weights, n / (n - 1) becomes n / (n - u), n - 1 and n - 2 the
    ``Moments.degrees_of_freedom`` f with the image and f' without it: C' = f / f' C - u n / ((n - u) f') v v^T.

    In float64: where images are fewer than channels, c t is close to 1.

    Attributes:
        mean: mu, (locations, d).
        whitening: Of A, (locations, d, d).
        farther: n / (n - 1), how much farther an image is from the mean without it.
        share: c.
        order: Of the generalised mean.
    """

    mean: Float64
    whitening: Float64
    farther: float
    share: float
    order: float

    @classmethod
    def of(
        cls,
        moments: Moments,
        regularised: Callable[[Float64], Float64],
        *,
        own_weight: float,
        order: float,
        image_weight: float = 1.0,
    ) -> LeaveOneOut:
        """From the moments of all images.

        Args:
            moments: Of three images or more.
            regularised: Covariances (n, d, d) to Sigma: w C + B, with a B that one image hardly changes.
            own_weight: w, that of a location's own covariance.
            order: Of the generalised mean.
            image_weight: u, what each image that will be scored weighs in the moments.
        """
        others = moments.count - image_weight
        freedom = others - (moments.squares - image_weight**2) / others
        scale, farther = moments.degrees_of_freedom / freedom, moments.count / others
        factors = whitening(moments.covariance(), lambda local: regularised(local * scale), np.float64)
        return cls(moments.mean, factors, farther, own_weight * image_weight * farther / freedom, order)

    def scores(self, reduced: Float32) -> Scores:
        """Of images that the moments hold, (n, d, h, w)."""
        images, channels, height, width = reduced.shape
        distances = np.empty((images, height * width), np.float32)
        for place, vectors in enumerate(reduced.reshape(images, channels, -1).transpose(2, 0, 1)):
            whitened = (vectors - self.mean[place]) @ self.whitening[place].T
            seen = np.square(whitened).sum(axis=1)
            distances[:, place] = self.farther**2 * seen / (1 - self.share * seen)
        return Scores(generalised_mean(distances, self.order), distances.reshape(images, height, width))
