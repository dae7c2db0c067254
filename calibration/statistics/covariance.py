"""Invertible covariances: shrinkage toward the pooled one, and whitening."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from calibration.errors import DegenerateFeaturesError
from calibration.statistics.location_threads import in_blocks
from calibration.statistics.moments import identical_features_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

Float = TypeVar("Float", np.float32, np.float64)

# A channel that is constant in good images (colour, under a monochrome camera) gets this share of the mean variance: a
# defect that changes it then counts, but rounding noise does not.
_VARIANCE_FLOOR = 1e-3
_SMALL = 32


def pooled_target(covariances: Float64, ridge: float) -> Float64:
    """The covariance that local ones are shrunk toward: their mean, made positive definite.

    The ridge is relative to each channel's own variance, because channels have different units.

    Args:
        covariances: C_l, (locations, d, d).
        ridge: Share of its own variance added to each channel, > 0.

    Returns:
        S, (d, d), positive definite.

    Raises:
        DegenerateFeaturesError: No channel varies: all images are alike.
    """
    pooled = np.asarray(covariances.mean(axis=0))
    variances = np.diag(pooled)
    if not variances.max() > 0.0:
        raise identical_features_error()
    pooled[np.diag_indices_from(pooled)] += ridge * np.maximum(variances, _VARIANCE_FLOOR * variances.mean())
    return pooled


def shrunk_whitening(covariances: Float64, target: Float64, alpha: float) -> NDArray[np.float32]:
    """Inverse Cholesky factors of the shrunk covariances.

    W_l with W_l Sigma_l W_l^T = I, Sigma_l = (1 - alpha) C_l + alpha S.

    Args:
        covariances: C_l, (locations, d, d).
        target: S, (d, d), positive definite.
        alpha: In (0, 1]. At 1 all locations share one factor and the result has one location.

    Returns:
        W, (locations or 1, d, d), float32, lower triangular.
    """
    if alpha == 1.0:
        return inverse_cholesky(target[None]).astype(np.float32)
    return whitening(covariances, lambda local: (1 - alpha) * local + alpha * target, np.float32)


def whitening(
    covariances: Float64, regularised: Callable[[Float64], Float64], precision: type[Float]
) -> NDArray[Float]:
    """Inverse Cholesky factors of regularised covariances, computed a few at a time.

    Args:
        covariances: C_l, (locations, d, d).
        regularised: Function that makes covariances, (n, d, d), positive definite.
        precision: Type of the result.

    Returns:
        W, (locations, d, d), lower triangular.
    """

    def whitened(block: slice) -> NDArray[Float]:
        return inverse_cholesky(regularised(covariances[block])).astype(precision)

    return np.concatenate(in_blocks(whitened, len(covariances)))


def inverse_cholesky(covariances: Float64) -> Float64:
    """Inverse Cholesky factors, (n, d, d), lower triangular.

    Raises:
        DegenerateFeaturesError: A covariance is not positive definite.
    """
    try:
        factors = np.asarray(np.linalg.cholesky(covariances), np.float64)
    except np.linalg.LinAlgError as error:
        raise DegenerateFeaturesError(
            what="a covariance is not positive definite",
            remedy="give more, and more varied, good images, or a larger alpha",
        ) from error
    _invert_triangular(factors)
    return factors


def _invert_triangular(factors: Float64) -> None:
    """Invert lower triangular matrices, (n, d, d), in place, by halves: [A 0; B C]^-1 = [A' 0; -C'BA' C'].

    A third of the arithmetic of a general inverse, and nearly all of it in matrix products.
    """
    size = factors.shape[-1]
    if size <= _SMALL:
        factors[:] = np.tril(np.linalg.inv(factors))
        return
    half = size // 2
    upper, lower, below = factors[:, :half, :half], factors[:, half:, half:], factors[:, half:, :half]
    _invert_triangular(upper)
    _invert_triangular(lower)
    np.negative(lower @ below @ upper, out=below)
