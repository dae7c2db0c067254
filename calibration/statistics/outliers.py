"""Good images that look least good: the highest out-of-fold scores, and those far above the rest."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.statistics.scores import Scores

HIGHEST = 6
SUSPICIOUS_Z = 3.5
_NORMAL_MAD = 0.6745  # median absolute deviation of a standard normal distribution
_LEAST_SPREAD = 0.01  # of scores that are almost all the same, one a hair above them is no suspect


class HighestScores:
    """The few images with the highest scores, and their maps, however many are offered.

    Attributes:
        indices: (n,), highest score first.
        maps: (n, h, w), float32.
    """

    def __init__(self) -> None:
        self._best: list[tuple[float, int, NDArray[np.float32]]] = []

    def offer(self, indices: Sequence[int], scores: Scores) -> None:
        """Maybe keep some of these images."""
        offered = zip(scores.score.tolist(), indices, scores.map, strict=True)
        ranked = sorted([*self._best, *offered], key=lambda each: (-each[0], each[1]))
        # Copied: a map is a part of its batch, which would stay in memory as a whole.
        self._best = [(score, index, score_map.copy()) for score, index, score_map in ranked[:HIGHEST]]

    @property
    def indices(self) -> list[int]:
        """Of the images, highest score first."""
        return [index for _, index, _ in self._best]

    @property
    def maps(self) -> NDArray[np.float32]:
        """Their score maps, (n, h, w)."""
        return np.stack([score_map for *_, score_map in self._best])


def outlier_indices(scores: NDArray[np.float64], contamination: float = 0.0) -> list[int]:
    """Indices of the images whose score is far above the rest, highest first.

    By the modified z-score above 3.5 (Iglewicz and Hoaglin 1993) of the logarithms, since a sum of squares has a long
    tail of its own. Defective images that are many hide one another: where a share of them is expected, twice as many
    are named (on magnetic tiles with 10 % defective ones that found 79 to 88 % of them).

    Args:
        scores: (n,), of images that the statistics had not seen.
        contamination: Share of the images that may be defective.
    """
    logarithms = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    deviation = logarithms - np.median(logarithms)
    spread = max(float(np.median(np.abs(deviation))), _LEAST_SPREAD)
    order = np.argsort(-scores, kind="stable")
    far = int((_NORMAL_MAD * deviation / spread > SUSPICIOUS_Z).sum())
    return [int(index) for index in order[: max(far, ceil(2 * contamination * len(scores)))]]
