"""Old statistics under new conditions: what a changed lamp or lens does to all good parts alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

_RIDGE = 1e-3
_NOTHING = 1e-9
_VECTORS_PER_CHANNEL = 10


def transport(old: Moments, new: Moments) -> Moments:
    """The old moments as they would be had their images been taken like the new ones.

    The linear map between two Gaussians that moves everything as little as possible (Olkin and Pukelsheim 1982):

        T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2,   mu_l' = m_new + T (mu_l - m_old),   C_l' = T C_l T^T

    A and B are the covariances, old and new, of all vectors of all places around their one mean m. A hundred new
    images have tens of thousands of vectors, enough for T, where they are far too few for a covariance of every place:
    that one is still the old images', seen through the new lens. Where even the vectors are too few, only the mean
    moves.

    Args:
        old: Of any number of images.
        new: At the same places; two images or more. A few defective ones among them hardly change T.
    """
    before, after = _of_all_places(old), _of_all_places(new)
    move = np.eye(len(before[0]))
    if len(new.mean) * new.effective_count >= _VECTORS_PER_CHANNEL * len(move):
        move = _smallest_move(before[1], after[1])
    mean = after[0] + (old.mean - before[0]) @ move.T
    scatter = np.stack([move @ place @ move.T for place in old.scatter])
    return Moments(old.count, mean, scatter, old.squares)


def _of_all_places(moments: Moments) -> tuple[Float64, Float64]:
    """Mean, (d,), and covariance of all vectors of all places, a little of each channel's variance added, (d, d)."""
    mean = moments.mean.mean(axis=0)
    apart = moments.mean - mean
    covariance = moments.covariance().mean(axis=0) + apart.T @ apart / len(apart)
    floor = _NOTHING * max(float(np.trace(covariance)) / len(covariance), np.finfo(np.float64).tiny)
    return mean, covariance + np.diag(_RIDGE * np.diag(covariance) + floor)


def _smallest_move(before: Float64, after: Float64) -> Float64:
    root, inverse_root = _power(before, 0.5), _power(before, -0.5)
    return inverse_root @ _power(root @ after @ root, 0.5) @ inverse_root


def _power(matrix: Float64, exponent: float) -> Float64:
    """Of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    raised = np.maximum(values, values.max() * np.finfo(np.float64).eps) ** exponent
    power: Float64 = (vectors * raised) @ vectors.T
    return power
