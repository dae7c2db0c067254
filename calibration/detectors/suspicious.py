"""Which images stand out among others that are to be good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.statistics.median_distance import MedianDistance
from calibration.statistics.outliers import outlier_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.detectors.feature_store import Features

_MOST, _FEWEST, _BYTES = 200, 25, 2**26


def suspicious_indices(
    scores: NDArray[np.float64], features: Features, rows: Sequence[int], contamination: float = 0.0
) -> list[int]:
    """Images that score far above the rest, or lie far from the median of all; the highest score first.

    Args:
        scores: Held-out scores, (n,).
        features: Features of these images, and perhaps of others.
        rows: Where those of each image are, (n,).
        contamination: Expected share of defective images; see `outlier_indices`.
    """
    distances = _distances(features, rows)
    found = {*outlier_indices(scores, contamination), *outlier_indices(distances)}
    return sorted(found, key=lambda index: (-scores[index], index))


def _distances(features: Features, rows: Sequence[int]) -> NDArray[np.float64]:
    """Distance of each image from the median of a sample spread over all."""
    most = max(_FEWEST, min(_MOST, _BYTES // (4 * int(np.prod(features.shape)))))
    chosen = np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))
    sample = np.concatenate(list(features.batches([rows[index] for index in chosen])))
    scored = features.scores(rows, MedianDistance.of(sample))
    return np.concatenate([each.score for each in scored]).astype(np.float64)
