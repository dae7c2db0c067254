"""Image scores from the distances at all locations."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.statistics.smoothing import Smoothing

    Float32 = NDArray[np.float32]


EPSILON = 1e-30
_SMOOTHED = 64  # maps that are smoothed at a time


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


def scores_of(squares: Float32, order: float, smoothing: Smoothing | None) -> Scores:
    """Scores and maps from squared distances, (n, h, w).

    Smoothed maps are of the distances, not of their squares, and the score is the largest of the map.
    """
    if smoothing is None:
        return Scores(generalised_mean(squares.reshape(len(squares), -1), order), squares)
    smoothed = smoothing(np.sqrt(squares))
    return Scores(smoothed.max(axis=(1, 2)), smoothed)


def chi_square_scores(
    shape: tuple[int, ...], order: float, smoothing: Smoothing | None = None
) -> Callable[[np.random.Generator, int], NDArray[np.float64]]:
    """Sampler of `WhiteningHead` scores if T2 were chi-square with d degrees of freedom, independent per location.

    ``shape`` is that of the reduced features, (d, h, w); ``order`` that of the generalised mean; see ``scores_of``.
    """
    channels, height, width = shape

    def draw(random: np.random.Generator, count: int) -> NDArray[np.float64]:
        squares = random.chisquare(channels, (count, height, width)).astype(np.float32)
        if smoothing is None:
            return scores_of(squares, order, None).score.astype(np.float64)
        few = np.array_split(squares, -(-count // _SMOOTHED))  # smoothed maps are large
        return np.concatenate([scores_of(each, order, smoothing).score for each in few]).astype(np.float64)

    return draw
