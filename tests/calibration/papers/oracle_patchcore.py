"""PatchCore: written from the paper's equations, without reading the code under test.

Roth, Pemula, Zepeda, Schoelkopf, Brox and Gehler 2022, "Towards Total Recall in Industrial Anomaly Detection", CVPR,
equations 1 to 7 and algorithm 1. The authors' code is github.com/amazon-science/patchcore-inspection; read for facts,
not copied.

What the equations leave open, and what is taken here:

- (2) names positions outside of the map at its border. The code reads zeros there and always divides by p p.
- Order: each level is aggregated on its own grid; then the coarser levels are resampled, bilinearly, to the grid of the
  first level, which must be the finest. Paper and code agree.
- "Adaptive average pooling to a predefined dimension d": the code pools the c p p values of a neighbourhood, channel by
  channel, into ``dimension`` bins, joins the levels, and pools again into ``target`` bins (both 1024 in the published
  runs of Wide ResNet-50, so that bins hold half a neighbourhood of ``layer2``). By default here: c bins, the plain
  mean of each channel over its neighbourhood, and no second pooling.
- Algorithm 1 begins with an empty coreset. The code's exact variant begins with the patch whose distances to all
  patches have the largest norm (``first_patch``); the variant of the published runs with the largest mean distance to
  ten random patches, and lets these means cap later distances. Here the start is given. Selected patches leave the
  candidates, as written in the algorithm. The projection is given too: psi(m) is m times a matrix.
- (7): N_b(m*) are the b patches of the bank nearest to m*, which is one of them itself, at distance 0. So the weight is
  within 0 and 1. The code has no weight at all: its image score is the maximum.
- Distances are Euclidean, as in (6) and (7). The code's are squared (``faiss.IndexFlatL2``), also in its maps.
- Segmentation: bilinear to the image's size, Gaussian blur of sigma 4 pixels; see ``oracle_resampling``.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from tests.calibration.papers.oracle_resampling import bilinear, gaussian_blur

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def neighbourhoods(level: NDArray[np.float64], size: int, stride: int = 1) -> NDArray[np.float64]:
    """Values (n, c p p, h', w') of each p x p neighbourhood of a level (n, c, h, w), zeros outside of it: (2), (3)."""
    half = size // 2
    _, channels, height, width = level.shape
    padded = np.pad(level, ((0, 0), (0, 0), (half, half), (half, half)))
    values = [
        padded[:, channel, down : down + height : stride, right : right + width : stride]
        for channel in range(channels)
        for down in range(size)
        for right in range(size)
    ]
    return np.stack(values, axis=1)


def adaptive_average(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Values (n, v, h, w) averaged into this number of overlapping bins along the second axis: (n, bins, h, w)."""
    length = values.shape[1]
    means = [
        values[:, floor(index * length / bins) : ceil((index + 1) * length / bins)].mean(axis=1)
        for index in range(bins)
    ]
    return np.stack(means, axis=1)


def embed(
    levels: Sequence[NDArray[np.float64]],
    size: int = 3,
    stride: int = 1,
    dimension: int | None = None,
    target: int | None = None,
) -> NDArray[np.float64]:
    """Locally aware patch features (n, d, h', w') of levels (n, c, h, w), the finest grid first: (1) to (3).

    Args:
        levels: Feature maps of one or more levels for the same n images.
        size: p, odd.
        stride: s; only positions with h mod s = w mod s = 0 are kept, on each level's own grid.
        dimension: Bins for each level; None for the channels of the level.
        target: Bins for the joined levels; None for no second pooling.
    """
    parts: list[NDArray[np.float64]] = []
    for level in levels:
        aggregated = adaptive_average(neighbourhoods(level, size, stride), dimension or level.shape[1])
        height, width = aggregated.shape[2:] if not parts else parts[0].shape[2:]
        parts.append(bilinear(aggregated, (height, width)))
    joined = np.concatenate(parts, axis=1)
    return joined if target is None else adaptive_average(joined, target)


def memory_bank(embedding: NDArray[np.float64]) -> NDArray[np.float64]:
    """All patches of good images (m, d), images first, then rows, then columns (4)."""
    return np.asarray(embedding.transpose(0, 2, 3, 1).reshape(-1, embedding.shape[1]))


def first_patch(bank: NDArray[np.float64]) -> int:
    """Index of the patch whose distances to all patches have the largest norm."""
    norms = [np.sqrt(np.sum((bank - patch) ** 2)) for patch in bank]
    return int(np.argmax(norms))


def coreset(
    bank: NDArray[np.float64], count: int, start: int, projection: NDArray[np.float64] | None = None
) -> list[int]:
    """Indices of the greedy coreset of a bank (m, d), in the order of selection: (5), algorithm 1.

    Args:
        bank: All patches.
        count: l, the size of the coreset; the code takes the whole part of a share of all patches.
        start: Index of the first patch.
        projection: psi as a matrix (d, d'); distances are measured after it. None: before.
    """
    measured = bank if projection is None else bank @ projection
    chosen = [start]
    nearest = np.linalg.norm(measured - measured[start], axis=1)
    while len(chosen) < count:
        candidates = [index for index in range(len(bank)) if index not in chosen]
        selected = max(candidates, key=lambda index: float(nearest[index]))
        chosen.append(selected)
        nearest = np.minimum(nearest, np.linalg.norm(measured - measured[selected], axis=1))
    return chosen


def distance_map(embedding: NDArray[np.float64], bank: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distance (n, h, w) of each patch (n, d, h, w) from the nearest in the bank."""
    count, _, height, width = embedding.shape
    distances = np.zeros((count, height, width))
    for image, row, column in np.ndindex(distances.shape):
        distances[image, row, column] = np.linalg.norm(bank - embedding[image, :, row, column], axis=1).min()
    return distances


def image_score(embedding: NDArray[np.float64], bank: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Score of each image (n,): its largest patch distance (6), weighted by b neighbours of its nearest patch (7).

    The weight is written 1 - 1 / sum(exp(d - s*)), the same as in (7), which does not overflow where exp(s*) would.
    """
    scores = []
    for patches, distances in zip(embedding, distance_map(embedding, bank), strict=True):
        row, column = np.unravel_index(int(np.argmax(distances)), distances.shape)
        patch = patches[:, row, column]
        to_bank = np.linalg.norm(bank - patch, axis=1)
        nearest = int(np.argmin(to_bank))
        around = np.argsort(np.linalg.norm(bank - bank[nearest], axis=1), kind="stable")[:neighbours]
        largest = to_bank[nearest]
        weight = 1 - 1 / np.sum(np.exp(to_bank[around] - largest))
        scores.append(weight * largest)
    return np.array(scores)


def segmentation(distances: NDArray[np.float64], size: tuple[int, int], sigma: float = 4) -> NDArray[np.float64]:
    """Map of each image (n, H, W) in pixels from its distance map (n, h, w)."""
    return np.stack([gaussian_blur(enlarged, sigma) for enlarged in bilinear(distances, size)])
