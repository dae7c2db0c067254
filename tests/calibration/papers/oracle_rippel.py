"""Gaussians of globally averaged features: written from the paper's equations, without reading the code under test.

Rippel, Mertens and Merhof 2021, "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly
Detection", ICPR, equations 1 to 6. The authors' code is github.com/ORippler/gaussian-ad-mvtec; read for facts, not
copied.

What the equations leave open, and what is taken here:

- Sum over levels: of distances, not of their squares. The code takes the mean over levels, which ranks alike.
- Components of PCA belong to the empirical covariance (no shrinkage), ordered by variance. The code finds i, the first
  component with which the cumulated share of variance exceeds ``variance``. PCA keeps components 0 to i. NPCA keeps
  i - 1 and all later ones: the authors write that the boundary lies in between and include the whole interval. So both
  keep components i - 1 and i. ``variance`` is 0.99 for "NPCA 1 %", 0.9999 for "NPCA 0.01 %". Where i is 0 the code
  keeps only the last component, by an index of -1; here all are kept then, which is what the rule says.
- With no more images than channels, the covariance has directions without any variance. scikit-learn gives min(n, c)
  components, so that the code's NPCA keeps one arbitrary direction of them. No equation asks for it, and it isn't
  determined by the data: here components without variance (below 1e-10 of the largest) are left out.
- The Gaussian (mean, Ledoit-Wolf covariance) is fitted to the reduced features.
- Threshold (6): squared distances of k dimensions follow chi-square with k degrees of freedom, for each level alone.
  Neither paper nor code has one for the sum over levels. Probability: that of a normal variable within n sigma.
- L2 and SED are the Mahalanobis distance with the identity and with the diagonal of variances (divisor n - 1). The code
  takes root mean squares, that is these distances divided by the root of the number of channels, which matters in the
  sum over levels alone: ``per_channel``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import chi2

from tests.calibration.papers.oracle_shrinkage import ledoit_wolf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Reduction = Literal["none", "pca", "npca"]


@dataclass(frozen=True)
class Gaussian:
    """One level: mean (c,) and standard deviation (c,) of its features, components (k, c), covariance (k, k)."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    components: NDArray[np.float64]
    covariance: NDArray[np.float64]


def pooled(level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features (n, c, h, w) averaged over all locations: (n, c)."""
    return np.asarray(level.mean(axis=(2, 3)))


def kept_components(features: NDArray[np.float64], reduction: Reduction, variance: float) -> NDArray[np.float64]:
    """Principal components (k, c) of features (n, c), of the largest variance first."""
    channels = features.shape[1]
    if reduction == "none":
        return np.eye(channels)
    variances, vectors = np.linalg.eigh(np.cov(features, rowvar=False).reshape(channels, channels))
    variances, components = variances[::-1], vectors.T[::-1]
    usable = variances > 1e-10 * variances[0]
    variances, components = variances[usable], components[usable]
    cumulated = np.cumsum(variances) / np.sum(variances)
    boundary = next(index for index, share in enumerate(cumulated) if share > variance)
    return np.asarray(components[: boundary + 1] if reduction == "pca" else components[max(boundary - 1, 0) :])


def fit(levels: Sequence[NDArray[np.float64]], reduction: Reduction = "none", variance: float = 0.99) -> list[Gaussian]:
    """A Gaussian for each level (n, c, h, w) of good images: (3), (4)."""
    gaussians = []
    for level in levels:
        features = pooled(level)
        mean = features.mean(axis=0)
        components = kept_components(features, reduction, variance)
        covariance, _ = ledoit_wolf((features - mean) @ components.T)
        gaussians.append(Gaussian(mean, features.std(axis=0, ddof=1), components, covariance))
    return gaussians


def distances(level: NDArray[np.float64], gaussian: Gaussian) -> NDArray[np.float64]:
    """Mahalanobis distance, not its square, of each image at one level: (n,) (2)."""
    reduced = (pooled(level) - gaussian.mean) @ gaussian.components.T
    return np.array([sqrt(shift @ np.linalg.solve(gaussian.covariance, shift)) for shift in reduced])


def score(levels: Sequence[NDArray[np.float64]], gaussians: Sequence[Gaussian]) -> NDArray[np.float64]:
    """Sum of the distances at all levels: (n,)."""
    return np.asarray(sum(distances(level, gaussian) for level, gaussian in zip(levels, gaussians, strict=True)))


def within_sigmas(sigmas: float) -> float:
    """Probability that a normal variable is within this number of standard deviations of its mean: 0.9973 for 3."""
    return erf(sigmas / sqrt(2))


def threshold(gaussian: Gaussian, probability: float) -> float:
    """Distance that the given share of good images stays below at one level (6)."""
    return sqrt(chi2.ppf(probability, len(gaussian.components)))


def l2_distances(level: NDArray[np.float64], gaussian: Gaussian, *, per_channel: bool = False) -> NDArray[np.float64]:
    """Euclidean distance of each image from the mean at one level: (n,)."""
    shifts = pooled(level) - gaussian.mean
    return _norms(shifts, per_channel=per_channel)


def sed_distances(level: NDArray[np.float64], gaussian: Gaussian, *, per_channel: bool = False) -> NDArray[np.float64]:
    """Standardised Euclidean distance of each image from the mean at one level: (n,)."""
    shifts = (pooled(level) - gaussian.mean) / gaussian.deviation
    return _norms(shifts, per_channel=per_channel)


def _norms(shifts: NDArray[np.float64], *, per_channel: bool) -> NDArray[np.float64]:
    divisor = shifts.shape[1] if per_channel else 1
    return np.asarray(np.sqrt(np.sum(shifts**2, axis=1) / divisor))
