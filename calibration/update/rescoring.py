"""Held-out scores of good images under other statistics, as far as a bundle's own frames tell.

The threshold is made of scores that good images have under statistics that have not seen them. When bundles are merged
the statistics become others, while of most images only the score is kept. But each bundle keeps some good frames: three
drawn at random, and those with its six highest scores. These are scored again, under the old and under the merged
statistics, without their own share in either. The six keep their own ratio of new to old score; the scores of all other
images are multiplied by the median ratio of their bundle's frames. So the highest, which make the threshold, are known
best. It is an estimate all the same. Each image counts alike in it, whatever it weighs in the statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.statistics.outliers import HIGHEST
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image
    from calibration.statistics.moments import Moments
    from calibration.update.additive import AdditiveDetector

    Arrays = Mapping[str, NDArray[Any]]
    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

_SMALLEST = 1e-30


@dataclass(frozen=True)
class KeptFrames:
    """Good frames that a bundle keeps and that its statistics hold: golden ones, then those with the highest scores.

    Attributes:
        frames: As network input.
        reduced: Their reduced features, (n, d, h, w).
        weights: What each weighs in some statistics, (n,).
        golden: How many of them are golden.
    """

    frames: list[Image]
    reduced: Float32
    weights: Float64
    golden: int

    @classmethod
    def of(cls, reference: Arrays, reduced: Callable[[Image], Float32]) -> KeptFrames:
        """Those of a bundle.

        Args:
            reference: Arrays of its ``reference.npz``.
            reduced: Features of a frame, by the bundle's network.
        """
        parts = {"golden": reference["golden_frames"][:-1], "highest": reference["highest_frames"]}  # damaged: no
        weights = [reference.get(f"{name}_weights", np.ones(len(frames))) for name, frames in parts.items()]
        frames = [frame for part in parts.values() for frame in part]
        features = np.stack([reduced(frame) for frame in frames])
        return cls(frames, features, np.concatenate(weights), len(parts["golden"]))

    def forgotten(self, weight: float) -> KeptFrames:
        """The same in statistics where the whole bundle weighs so much."""
        return replace(self, weights=weight * self.weights)

    def held_out_scores(self, method: AdditiveDetector, moments: Moments) -> Scores:
        """Scores as if the moments, in which each has its weight, did not hold the frame."""
        found: dict[int, Scores] = {}
        for weight in np.unique(self.weights):
            chosen = np.flatnonzero(self.weights == weight)
            scored = method.leave_one_out_scorer(moments, float(weight)).scores(self.reduced[chosen])
            found |= {int(i): Scores(*one) for i, *one in zip(chosen, scored.score, scored.map, strict=True)}
        in_order = [found[i] for i in range(len(self.frames))]
        return Scores(np.array([each.score for each in in_order]), np.stack([each.map for each in in_order]))


def rescale_scores(reference: Arrays, kept: KeptFrames, old: Scores, new: Scores) -> dict[str, NDArray[Any]]:
    """A bundle's arrays about good images, with their scores under other statistics; see the top of this file.

    Args:
        reference: Arrays of its ``reference.npz``.
        kept: Its frames, as they weigh in the others.
        old: Their scores under the bundle's statistics, which have not seen them.
        new: Under the others.
    """
    ratios = new.score.astype(np.float64) / np.maximum(old.score, _SMALLEST)
    before, of_highest = reference["good_scores"], slice(kept.golden, None)
    after = before * float(np.median(ratios))
    highest = reference["highest_scores"] * ratios[of_highest]
    for was, becomes in zip(reference["highest_scores"], highest, strict=True):
        after[before == was] = becomes
    scale = (highest / np.maximum(new.score[of_highest], _SMALLEST)).astype(np.float32)
    return {
        "good_scores": after,
        "highest_frames": reference["highest_frames"],
        "highest_weights": kept.weights[of_highest],
        "highest_names": reference["highest_names"],
        "highest_scores": highest,
        "highest_maps": new.map[of_highest] * scale[:, None, None],
        "suspicious_names": reference["suspicious_names"],
        "suspicious_scores": np.array([after[before == was][0] for was in reference["suspicious_scores"]], np.float64),
    }


def concatenate_scores(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Arrays about good images of several bundles, of ``rescored``, as one has them: highest scores first."""
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
