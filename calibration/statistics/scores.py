"""Image scores from the distances at all locations."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]


EPSILON = 1e-30


class Scores(NamedTuple):
    """Scores of images, (n,), and their score maps, (n, h, w), float32."""

    score: Float32
    map: Float32


def generalised_mean(distances: Float32, order: float) -> Float32:
    """(mean over locations of T2^order)^(1 / order): the mean at 1, the largest at infinity (Radenovic et al. 2018).

    Args:
        distances: (n, locations), 0 or more.
        order: 1 or more.

    Returns:
        (n,); between the largest and locations^(-1 / order) of it.
    """
    largest: Float32 = distances.max(axis=1)
    if order == inf:
        return largest
    # Relative to the largest, because powers of large distances would overflow float32.
    relative = distances / np.maximum(largest, EPSILON)[:, None]
    mean: Float32 = largest * np.power(np.power(relative, order).mean(axis=1), 1.0 / order)
    return mean


def chi_square_scores(
    shape: tuple[int, ...], order: float
) -> Callable[[np.random.Generator, int], NDArray[np.float64]]:
    """Sampler of `WhiteningHead` scores if T2 were chi-square with d degrees of freedom, independent per location.

    ``shape`` is that of the reduced features, (d, h, w); ``order`` that of the generalised mean.
    """
    channels, height, width = shape

    def draw(random: np.random.Generator, count: int) -> NDArray[np.float64]:
        distances = random.chisquare(channels, (count, height * width)).astype(np.float32)
        return generalised_mean(distances, order).astype(np.float64)

    return draw
