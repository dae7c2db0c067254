"""Good images that look least good: those with the highest held-out scores, outliers, and strays."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.statistics.scores import Scores

HIGHEST = 6
_OUTLIER_Z = 3.5
_NORMAL_MAD = 0.6745  # median absolute deviation of a standard normal distribution
_FENCE, _MOST_STRAYS = 3.0, 0.1
_MIN_SPREAD = 0.01  # so that among almost equal scores, a slightly higher one is not an outlier


class HighestScores:
    """The images with the highest scores, and their score maps, of any number offered."""

    def __init__(self) -> None:
        self._best: list[tuple[float, int, NDArray[np.float32]]] = []

    def offer(self, indices: Sequence[int], scores: Scores) -> None:
        """Keep those of these images that are among the highest."""
        offered = zip(scores.score.tolist(), indices, scores.map, strict=True)
        ranked = sorted([*self._best, *offered], key=lambda each: (-each[0], each[1]))
        # Copied, because a map is a view of its batch, which would stay in memory as a whole.
        self._best = [(score, index, score_map.copy()) for score, index, score_map in ranked[:HIGHEST]]

    @property
    def indices(self) -> list[int]:
        """Indices of the images, highest score first."""
        return [index for _, index, _ in self._best]

    @property
    def maps(self) -> NDArray[np.float32]:
        """Their score maps, (n, h, w)."""
        return np.stack([score_map for *_, score_map in self._best])


def outlier_indices(scores: NDArray[np.float64], contamination: float = 0.0) -> list[int]:
    """Indices of the images that score far above the rest, highest first.

    Uses the modified z-score above 3.5 (Iglewicz and Hoaglin 1993) of the logarithms, since a sum of squares has a long
    tail of its own. Many defective images hide one another: if a share of them is expected, at least twice as many
    are returned (on magnetic tiles with 10 % defective ones, this found 79 to 88 % of them).

    Args:
        scores: Held-out scores, (n,).
        contamination: Expected share of defective images.
    """
    logarithms = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    deviation = logarithms - np.median(logarithms)
    spread = max(float(np.median(np.abs(deviation))), _MIN_SPREAD)
    order = np.argsort(-scores, kind="stable")
    far = int((_NORMAL_MAD * deviation / spread > _OUTLIER_Z).sum())
    return [int(index) for index in order[: max(far, ceil(2 * contamination * len(scores)))]]


def stray_indices(scores: NDArray[np.float64]) -> list[int]:
    """Indices of scores so far above all others that they belong to no tail, highest first.

    Those whose logarithms lie beyond Tukey's outer fence: more than three interquartile ranges above the upper quartile
    (Tukey 1977). None if they are more than a tenth: these are parts of another kind, not strays.
    """
    logs = logarithms(scores)
    lower, upper = np.quantile(logs, [0.25, 0.75])
    far = np.flatnonzero(logs > upper + _FENCE * (upper - lower))
    if len(far) > _MOST_STRAYS * len(scores):
        return []
    return [int(index) for index in far[np.argsort(-scores[far], kind="stable")]]


def logarithms(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of scores; zero, the distance of a copy, is taken for the smallest other score."""
    smallest = np.min(scores, initial=np.inf, where=scores > 0.0)
    return np.log(np.maximum(scores, smallest if np.isfinite(smallest) else 1.0))
