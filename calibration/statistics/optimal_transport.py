"""Optimal transport of moments to new conditions: the effect of a changed lamp or lens on all good parts alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

_RIDGE = 1e-3
_FLOOR = 1e-9
_VECTORS_PER_CHANNEL = 10


def transport(old: Moments, new: Moments) -> Moments:
    """The old moments as if their images had been taken under the conditions of the new ones.

    Uses the linear map between two Gaussians with the least displacement (Olkin and Pukelsheim 1982):

        T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2,   mu_l' = m_new + T (mu_l - m_old),   C_l' = T C_l T^T

    A and B are the old and the new covariance of all vectors of all locations around their common mean m. A hundred
    new images have tens of thousands of vectors. That is enough for T, but far too few for a covariance at every
    location, which therefore remains that of the old images, transformed. With too few vectors even for T, only the
    mean moves.

    Args:
        old: Moments of any number of images.
        new: Moments at the same locations, of two images or more. A few defective ones hardly change T.
    """
    before, after = _overall(old), _overall(new)
    linear_map = np.eye(len(before[0]))
    if len(new.mean) * new.effective_count >= _VECTORS_PER_CHANNEL * len(linear_map):
        linear_map = _transport_map(before[1], after[1])
    mean = after[0] + (old.mean - before[0]) @ linear_map.T
    scatter = np.stack([linear_map @ local @ linear_map.T for local in old.scatter])
    return Moments(old.count, mean, scatter, old.squares)


def _overall(moments: Moments) -> tuple[Float64, Float64]:
    """Mean, (d,), and covariance with a small ridge, (d, d), of the vectors of all locations."""
    mean = moments.mean.mean(axis=0)
    deviations = moments.mean - mean
    covariance = moments.covariance().mean(axis=0) + deviations.T @ deviations / len(deviations)
    floor = _FLOOR * max(float(np.trace(covariance)) / len(covariance), np.finfo(np.float64).tiny)
    return mean, covariance + np.diag(_RIDGE * np.diag(covariance) + floor)


def _transport_map(before: Float64, after: Float64) -> Float64:
    root, inverse_root = _power(before, 0.5), _power(before, -0.5)
    return inverse_root @ _power(root @ after @ root, 0.5) @ inverse_root


def _power(matrix: Float64, exponent: float) -> Float64:
    """Power of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    raised = np.maximum(values, values.max() * np.finfo(np.float64).eps) ** exponent
    power: Float64 = (vectors * raised) @ vectors.T
    return power
