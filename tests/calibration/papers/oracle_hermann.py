"""Mean-shifts of patches by Hotelling's T2: written from the paper's equations, without reading the code under test.

Hermann, Umlauf, Goldluecke and Franz 2022, "Fast and Efficient Image Novelty Detection Based on Mean-Shifts", Sensors
22(19), 7674, equations 5 to 12. The authors' code is github.com/matherm/deep-mean-shift; read for facts, not copied.

What the equations leave open, and what is taken here:

- Patches: k x k neighbouring cells of the feature map at stride 1 without padding, their channels joined (12). The code
  counts R0 as the smallest input that gives one cell: 16 for EfficientNet-B4 blocks 5 and 6 and for Wide ResNet-50
  ``layer3``, both at a stride tau of 16.
- Average pooling (9) is valid, as in the code's class ``DeepMeanShift``. (Some notebooks pad with zeros.)
- (10) is the quadratic form of (6) for the rho x rho patches of a window. Its factor, the number of patches, is the
  same everywhere. The code leaves it out, and divides by the dimension. Here it is ``count``, 1 unless given.
- Around which mean (10) measures: mu of (5) unless ``means`` are given. The code subtracts at each location the mean
  of the good images there (``location_means``). Its several means (``several_means``) are the same at all locations.
- With several means, each location takes the nearest one (smallest T2), as in the code, and only then the maximum (11)
  is taken. An image (6) takes its nearest mean.
- Covariance: Ledoit-Wolf (7) of the patches around the one mean of (5), also where several means are used, as in the
  notebooks. (The class in the code uses the plain covariance with divisor n - 1, which needs more patches than
  dimensions.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.calibration.papers.oracle_shrinkage import ledoit_wolf

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Statistics:
    """One Gaussian for all patches: mean (d,) and shrunk covariance (d, d) of (5) and (7), with d = c k k."""

    patch: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    shrinkage: float


def patch_pixels(patch: int, receptive_field: int, stride: int) -> int:
    """Side R of a patch of k x k cells in pixels (12): R0 + (k - 1) tau."""
    return receptive_field + (patch - 1) * stride


def pooling_cells(averaging: int, patch: int, stride: int) -> int:
    """Side rho of the pooling window for an averaging region A and patches R, in pixels (8): (A - R) / tau + 1."""
    return int((averaging - patch) / stride + 1)


def patches(features: NDArray[np.float64], patch: int) -> NDArray[np.float64]:
    """Patches (n, c k k, h - k + 1, w - k + 1) of feature maps (n, c, h, w)."""
    _, _, height, width = features.shape
    rows, columns = height - patch + 1, width - patch + 1
    shifted = [
        features[:, channel, down : down + rows, right : right + columns]
        for channel in range(features.shape[1])
        for down in range(patch)
        for right in range(patch)
    ]
    return np.stack(shifted, axis=1)


def fit(features: NDArray[np.float64], patch: int) -> Statistics:
    """Mean and covariance of all un-averaged patches of good images (n, c, h, w): (5), (7)."""
    joined = patches(features, patch)
    samples = joined.transpose(0, 2, 3, 1).reshape(-1, joined.shape[1])
    covariance, shrinkage = ledoit_wolf(samples)
    return Statistics(patch, samples.mean(axis=0), covariance, shrinkage)


def averages(features: NDArray[np.float64], patch: int, rho: int) -> NDArray[np.float64]:
    """Local means (n, d, h', w') of patches in windows of rho x rho, stride 1, no padding (9)."""
    joined = patches(features, patch)
    count, dimensions, height, width = joined.shape
    means = np.zeros((count, dimensions, height - rho + 1, width - rho + 1))
    for row in range(means.shape[2]):
        for column in range(means.shape[3]):
            means[:, :, row, column] = joined[:, :, row : row + rho, column : column + rho].mean(axis=(2, 3))
    return means


def t2(average: NDArray[np.float64], mean: NDArray[np.float64], covariance: NDArray[np.float64], count: int) -> float:
    """Hotelling's T2 (6): count (average - mean)^T covariance^-1 (average - mean)."""
    shift = average - mean
    return float(count * (shift @ np.linalg.solve(covariance, shift)))


def global_score(
    features: NDArray[np.float64], statistics: Statistics, means: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """T2 of the mean over all patches of each image: (n,) (6). Of several means (K, d), the nearest."""
    joined = patches(features, statistics.patch)
    count = joined.shape[2] * joined.shape[3]
    references = statistics.mean[None] if means is None else means
    scores = [
        min(t2(image.mean(axis=(1, 2)), reference, statistics.covariance, count) for reference in references)
        for image in joined
    ]
    return np.array(scores)


def score_map(
    features: NDArray[np.float64],
    statistics: Statistics,
    rho: int,
    means: NDArray[np.float64] | None = None,
    count: int = 1,
) -> NDArray[np.float64]:
    """T2 of the local mean at each location: (n, h', w') (10).

    Args:
        features: Feature maps (n, c, h, w).
        statistics: What ``fit`` gives.
        rho: Side of the pooling window in cells.
        means: Several means (K, d) for all locations, or (K, d, h', w'); the nearest counts. Default: mu of (5) alone.
        count: Factor of T2: rho squared for T2 of the patches of a window, 1 as in the authors' code.
    """
    local = averages(features, statistics.patch, rho)
    images, _, height, width = local.shape
    references = statistics.mean[None] if means is None else means
    if references.ndim == 2:
        references = np.tile(references[:, :, None, None], (1, 1, height, width))
    scores = np.zeros((images, height, width))
    for image, row, column in np.ndindex(scores.shape):
        average = local[image, :, row, column]
        scores[image, row, column] = min(
            t2(average, reference[:, row, column], statistics.covariance, count) for reference in references
        )
    return scores


def score(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score of each image: the maximum (n,) of its map (n, h', w') (11)."""
    return np.asarray(scores.max(axis=(1, 2)))


def location_means(features: NDArray[np.float64], patch: int, rho: int) -> NDArray[np.float64]:
    """Mean of the good images at each location (1, d, h', w'), for ``score_map``."""
    return np.asarray(averages(features, patch, rho).mean(axis=0)[None])


def several_means(
    features: NDArray[np.float64], patch: int, rho: int, count: int, start: int = 0
) -> NDArray[np.float64]:
    """Means (K, d) for ``score_map``: greedy k-centres among the local means of all good images and locations.

    Distances are Euclidean. The first is ``start``, counted over images, then rows, then columns: 0 in the code.
    """
    local = averages(features, patch, rho)
    candidates = local.transpose(0, 2, 3, 1).reshape(-1, local.shape[1])
    chosen = [start]
    while len(chosen) < count:
        nearest = [min(np.linalg.norm(candidate - candidates[index]) for index in chosen) for candidate in candidates]
        chosen.append(int(np.argmax(nearest)))
    return np.asarray(candidates[chosen])
