"""PaDiM: written from the paper's equations, without reading the code under test.

Defard, Setkov, Loesch and Audigier 2021, "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR workshops, equations 1 and 2. The authors published no code. A common implementation by others is
github.com/xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master; read for facts, not copied.

What the equations leave open, and what is taken here:

- Levels are brought to the largest grid: a patch takes the "spatially corresponding" activation of each level. A coarse
  cell covers s x s fine ones and is copied to all of them, as in that implementation; nothing is interpolated.
- Channels: a random subset of the joined levels, in the order of the levels. Here it is given.
- Covariance (1): divisor n - 1, plus 0.01 on the diagonal. Both agree.
- Distance (2): the Mahalanobis distance, the root. Both agree.
- Map: the paper enlarges bicubically and blurs with a Gaussian of sigma 4; that implementation enlarges bilinearly
  (``align_corners=False``) and blurs alike. Bilinear here: the paper defines no cubic kernel, and libraries differ.
- Image score: the maximum of the map. In the paper's method section the map is the matrix of the distances (2) on the
  grid: ``image_score(distance_map(...))``. That implementation takes the maximum of the enlarged and blurred map:
  ``image_score(anomaly_map(...))``. The experiments blur, so this is the score to compare a published system with.
- That implementation scales all maps of a test set to 0 to 1. This ranks alike and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.calibration.papers.oracle_resampling import bilinear, gaussian_blur

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian for each location: means (d, h, w) and covariances (h, w, d, d)."""

    means: NDArray[np.float64]
    covariances: NDArray[np.float64]


def embed(levels: Sequence[NDArray[np.float64]], channels: Sequence[int]) -> NDArray[np.float64]:
    """Embedding vectors (n, d, h, w) of levels (n, c, h', w') on the largest grid, with the given d channels."""
    height = max(level.shape[2] for level in levels)
    width = max(level.shape[3] for level in levels)
    parts = []
    for level in levels:
        spread = np.zeros((*level.shape[:2], height, width))
        for row in range(height):
            for column in range(width):
                source = row * level.shape[2] // height, column * level.shape[3] // width
                spread[:, :, row, column] = level[:, :, source[0], source[1]]
        parts.append(spread)
    return np.asarray(np.concatenate(parts, axis=1)[:, list(channels)])


def fit(embedding: NDArray[np.float64], epsilon: float = 0.01) -> Gaussians:
    """Mean and covariance at each location, from embeddings (n, d, h, w) of good images (1)."""
    count, dimensions, height, width = embedding.shape
    covariances = np.zeros((height, width, dimensions, dimensions))
    for row in range(height):
        for column in range(width):
            shifts = embedding[:, :, row, column] - embedding[:, :, row, column].mean(axis=0)
            covariances[row, column] = shifts.T @ shifts / (count - 1) + epsilon * np.eye(dimensions)
    return Gaussians(embedding.mean(axis=0), covariances)


def distance_map(embedding: NDArray[np.float64], gaussians: Gaussians) -> NDArray[np.float64]:
    """Mahalanobis distance at each location (n, h, w) (2)."""
    count, _, height, width = embedding.shape
    distances = np.zeros((count, height, width))
    for image, row, column in np.ndindex(distances.shape):
        shift = embedding[image, :, row, column] - gaussians.means[:, row, column]
        distances[image, row, column] = np.sqrt(shift @ np.linalg.solve(gaussians.covariances[row, column], shift))
    return distances


def anomaly_map(distances: NDArray[np.float64], size: tuple[int, int], sigma: float = 4) -> NDArray[np.float64]:
    """Map of each image (n, H, W) in pixels from its distances (n, h, w)."""
    return np.stack([gaussian_blur(enlarged, sigma) for enlarged in bilinear(distances, size)])


def image_score(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maximum (n,) of each image's map (n, h, w)."""
    return np.asarray(maps.max(axis=(1, 2)))
