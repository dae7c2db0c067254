"""Scores of good images under statistics that have not seen them: what the threshold is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors.contract import Folds
from calibration.statistics.outliers import HighestScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Fit
    from calibration.detectors.feature_store import Features
    from calibration.progress import Progress

FOLDS = 5


def make_folds(count: int, *, sequential: bool, parts: Sequence[str] | None = None) -> Folds:
    """Which images are held out together: blocks of a video, whose neighbours resemble each other, else a shuffle.

    Args:
        count: Of the images.
        sequential: They are a video's.
        parts: What each shows, where several may show the same: these stay together.
    """
    if parts is not None:
        different = np.random.default_rng(0).permutation(sorted(set(parts)))
        return Folds(
            [np.flatnonzero(np.isin(parts, part)).tolist() for part in np.array_split(different, FOLDS)],
            independent=False,
        )
    order = np.arange(count) if sequential else np.random.default_rng(0).permutation(count)
    return Folds([sorted(part.tolist()) for part in np.array_split(order, FOLDS)], independent=not sequential)


def augmented_folds(folds: Folds, copies: int) -> Folds:
    """The rows of the store: an image is held out together with its varied copies."""
    if not copies:
        return folds
    rows = 1 + copies
    return Folds([[index * rows + row for index in group for row in range(rows)] for group in folds.groups])


def out_of_fold_scores(
    store: Features, folds: Folds, rows: int, fit: Fit, progress: Progress
) -> tuple[NDArray[np.float64], HighestScores]:
    """Score of every image, the first of its rows, under statistics that have not seen it, (n,), and the highest."""
    scores, highest = np.empty(store.count // rows), HighestScores()
    for number, (fold, head) in enumerate(zip(folds.groups, fit.held_out, strict=True), start=1):
        place = 0
        for scored in store.scores([index * rows for index in fold], head):
            indices = fold[place : place + len(scored.score)]
            scores[indices] = scored.score
            highest.offer(indices, scored)
            place += len(indices)
        progress("validating", number, len(folds.groups))
    return scores, highest
