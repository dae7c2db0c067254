"""Estimates held-out scores of good images under merged statistics, from the few frames that bundles keep.

The threshold is made of scores that good images have under statistics without them. Merging changes the statistics,
but a bundle keeps only the score of most images. It does keep three good frames drawn at random and those with its six
highest scores. These are scored again, under the old and under the merged statistics, each without its own share. The
six keep their own ratio of new to old score; the scores of all other images are multiplied by the median ratio of the
bundle's kept frames. So the highest scores, which decide the threshold, are known best. Each image counts alike,
whatever its weight in the statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.statistics.outliers import HIGHEST
from calibration.statistics.scores import EPSILON, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import AdditiveDetector
    from calibration.imaging.preprocess import Image
    from calibration.statistics.moments import Moments

    Arrays = Mapping[str, NDArray[Any]]
    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class KeptFrames:
    """Good frames that a bundle keeps and that its statistics hold: golden frames, then those with the highest scores.

    Attributes:
        frames: Network inputs.
        reduced: Their reduced features, (n, d, h, w).
        weights: Weight of each in some statistics, (n,).
        golden: Number of golden frames.
    """

    frames: list[Image]
    reduced: Float32
    weights: Float64
    golden: int

    @classmethod
    def of(cls, reference: Arrays, reduced: Callable[[Image], Float32]) -> KeptFrames:
        """The undamaged frames in a bundle's ``reference.npz``; ``reduced`` computes their features."""
        parts = {
            "golden": reference["golden_frames"][:-1],
            "highest": reference["highest_frames"],
        }
        weights = [reference.get(f"{name}_weights", np.ones(len(frames))) for name, frames in parts.items()]
        frames = [frame for part in parts.values() for frame in part]
        features = np.stack([reduced(frame) for frame in frames])
        return cls(frames, features, np.concatenate(weights), len(parts["golden"]))

    def scaled(self, weight: float) -> KeptFrames:
        """The same frames in statistics that give the whole bundle this weight."""
        return replace(self, weights=weight * self.weights)

    def held_out_scores(self, detector: AdditiveDetector, moments: Moments) -> Scores:
        """Scores under the moments, each frame under moments without it."""
        score = np.empty(len(self.frames), np.float32)
        maps = np.empty((len(self.frames), *self.reduced.shape[2:]), np.float32)
        for row, weight in enumerate(self.weights):
            scorer = detector.leave_one_out_scorer(moments, self.reduced[row : row + 1], float(weight))
            score[row : row + 1], maps[row : row + 1] = scorer.scores(self.reduced[row : row + 1])
        return Scores(score, maps)


def rescale_scores(reference: Arrays, kept: KeptFrames, old: Scores, new: Scores) -> dict[str, NDArray[Any]]:
    """A bundle's arrays about good images, with scores under other statistics; see the module's docstring.

    Args:
        reference: Arrays of its ``reference.npz``.
        kept: Its kept frames, with their weights in the other statistics.
        old: Held-out scores of these frames under the bundle's statistics.
        new: Held-out scores of these frames under the other statistics.
    """
    ratios = new.score.astype(np.float64) / np.maximum(old.score, EPSILON)
    old_scores, old_highest = reference["good_scores"], reference["highest_scores"]
    highest_rows = slice(kept.golden, None)
    scores = old_scores * float(np.median(ratios))
    highest = old_highest * ratios[highest_rows]
    for old_score, score in zip(old_highest, highest, strict=True):
        scores[old_scores == old_score] = score
    scale = (highest / np.maximum(new.score[highest_rows], EPSILON)).astype(np.float32)
    suspicious = [scores[old_scores == score][0] for score in reference["suspicious_scores"]]
    return {
        "good_scores": scores,
        "highest_frames": reference["highest_frames"],
        "highest_weights": kept.weights[highest_rows],
        "highest_names": reference["highest_names"],
        "highest_scores": highest,
        "highest_maps": new.map[highest_rows] * scale[:, None, None],
        "suspicious_names": reference["suspicious_names"],
        "suspicious_scores": np.array(suspicious, np.float64),
    }


def concatenate_scores(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """The arrays of ``rescale_scores`` of several bundles as one bundle has them: highest scores first."""
    return {
        "good_scores": np.concatenate([part["good_scores"] for part in parts]),
        **_ranked(parts, "highest", HIGHEST),
        **_ranked(parts, "suspicious", None),
    }


def _ranked(parts: Sequence[Arrays], prefix: str, most: int | None) -> dict[str, NDArray[Any]]:
    names = [name for name in parts[0] if name.startswith(f"{prefix}_")]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    order = np.argsort(-joined[f"{prefix}_scores"], kind="stable")[:most]
    return {name: array[order] for name, array in joined.items()}
