"""Leave-one-out scores of images, without another fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.covariance import whitening
from calibration.statistics.location_threads import in_blocks
from calibration.statistics.scores import Scores, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.statistics.moments import Moments
    from calibration.statistics.smoothing import Smoothing

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


class LeaveOneOut:
    """Scores each image, or a changed copy of it, under mean and covariance without the image.

    With v = P - mu, n images and Sigma = w C + B, without the image:

        mu' = mu - v / (n - 1)
        C' = (n - 1) / (n - 2) C - n / ((n - 1) (n - 2)) v v^T
        Sigma' = A - c v v^T,  A = w (n - 1) / (n - 2) C + B,  c = w n / ((n - 1) (n - 2))
        x^T Sigma'^-1 x = q(x, x) + c q(x, v)^2 / (1 - c q(v, v)),  q(x, y) = x^T A^-1 y   (Sherman and Morrison 1950)

    where x = Q - mu' for a copy Q, or n / (n - 1) v for the image itself. If images have a weight u, n is the sum of
    all weights and n / (n - 1) becomes n / (n - u); n - 1 and n - 2 become the ``Moments.degrees_of_freedom`` f with
    the image and f' without it: C' = f / f' C - u n / ((n - u) f') v v^T.

    Computed in float64: with fewer images than channels, c q(v, v) is close to 1.

    Args:
        moments: Moments of three images or more.
        regularised: Turns covariances C, (n, d, d), into Sigma = w C + B, where B hardly depends on one image.
        own_weight: w, weight of a location's own covariance.
        order: Order of the generalised mean.
        image_weight: u, weight in the moments of each image that will be scored.
        smoothing: Of the score maps; the largest of a smoothed map is the score, whatever the order.
    """

    def __init__(  # noqa: PLR0913 - what the scores depend on
        self,
        moments: Moments,
        regularised: Callable[[Float64], Float64],
        *,
        own_weight: float,
        order: float,
        image_weight: float = 1.0,
        smoothing: Smoothing | None = None,
    ) -> None:
        others = moments.count - image_weight
        freedom = others - (moments.squares - image_weight**2) / others
        scale = moments.degrees_of_freedom / freedom
        self._mean, self._order, self._smoothing = moments.mean, order, smoothing
        self._whitening = whitening(moments.covariance(), lambda local: regularised(local * scale), np.float64)
        self._mean_factor = moments.count / others  # n / (n - u)
        self._outer_factor = own_weight * image_weight * self._mean_factor / freedom  # c

    def scores(self, reduced: Float32, originals: Float32 | None = None) -> Scores:
        """Scores of images, (n, d, h, w).

        Args:
            reduced: Features of the images.
            originals: Features, of the same shape, of the images in the moments that these are changed copies of; None
                if these are themselves in the moments.
        """
        images, _, height, width = reduced.shape
        distances = np.empty((images, height * width), np.float32)
        vectors = _by_location(reduced if originals is None else originals)

        def measure(block: slice) -> None:
            for location in range(block.start, block.stop):
                own = (vectors[location] - self._mean[location]) @ self._whitening[location].T
                copy = own
                if originals is not None:
                    copy = (_by_location(reduced)[location] - self._mean[location]) @ self._whitening[location].T
                from_others = copy + (self._mean_factor - 1) * own
                squares = np.square(own).sum(axis=1)
                shared = np.square((from_others * own).sum(axis=1)) / (1 - self._outer_factor * squares)
                distances[:, location] = np.square(from_others).sum(axis=1) + self._outer_factor * shared

        in_blocks(measure, len(vectors))
        return scores_of(distances.reshape(images, height, width), self._order, self._smoothing)


def _by_location(reduced: Float32) -> Float32:
    """(n, d, h, w) as a view of the vectors of each location, (h * w, n, d)."""
    vectors: Float32 = reduced.reshape(*reduced.shape[:2], -1).transpose(2, 0, 1)
    return vectors
