"""Cross-validation: scores of good images that the statistics have not seen, for the threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors.contract import Folds
from calibration.statistics.outliers import HighestScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Fit
    from calibration.detectors.damaged_images import DamagedImages
    from calibration.detectors.feature_store import Features
    from calibration.progress import Progress

FOLDS = 5


def make_folds(count: int, *, sequential: bool, parts: Sequence[str] | None = None) -> Folds:
    """Folds of a video are blocks, since neighbours resemble each other; other images are shuffled.

    Args:
        count: Number of images.
        sequential: The images are frames of a video.
        parts: The part that each image shows; images of a part stay together.
    """
    if parts is not None:
        shuffled = np.random.default_rng(0).permutation(sorted(set(parts)))
        groups = [np.flatnonzero(np.isin(parts, fold)).tolist() for fold in np.array_split(shuffled, FOLDS)]
        return Folds(groups, parts=len(shuffled))
    order = np.arange(count) if sequential else np.random.default_rng(0).permutation(count)
    return Folds([sorted(fold.tolist()) for fold in np.array_split(order, FOLDS)], independent=not sequential)


def augmented_folds(folds: Folds, copies: int) -> Folds:
    """Folds of the rows of the store, where each image is followed by its augmented copies."""
    if not copies:
        return folds
    rows = 1 + copies
    return Folds([[index * rows + row for index in group for row in range(rows)] for group in folds.groups])


def out_of_fold_scores(  # noqa: PLR0913, PLR0917 - what to score, by which division of it
    store: Features, folds: Folds, rows: int, fit: Fit, damaged: DamagedImages, progress: Progress
) -> tuple[NDArray[np.float64], HighestScores]:
    """Held-out score of the first row of every image, (n,), and the highest scores; ``damaged`` is scored as well."""
    scores, highest = np.empty(store.count // rows), HighestScores()
    for number, (fold, head) in enumerate(zip(folds.groups, fit.held_out, strict=True), start=1):
        start = 0
        for scored in store.scores([index * rows for index in fold], head):
            indices = fold[start : start + len(scored.score)]
            scores[indices] = scored.score
            highest.offer(indices, scored)
            start += len(indices)
        damaged.score([index * rows for index in fold], head, store)
        progress("validating", number, len(folds.groups))
    return scores, highest
