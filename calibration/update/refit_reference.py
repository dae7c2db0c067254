"""The arrays of a bundle that learnt on: how good frames look, golden frames, scores of the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from calibration.bundle.bundle import GoldenFrames
from calibration.bundle.golden_frames import GoldenSample
from calibration.camera_checks.merge import PER_FRAME_ARRAYS, merged_reference
from calibration.camera_checks.reference import ReferenceStatistics
from calibration.statistics.outliers import HIGHEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.detectors.head import WhiteningHead
    from calibration.statistics.scores import Scores
    from calibration.update.part_store import PartStore

    Arrays: TypeAlias = dict[str, NDArray[Any]]


def golden_frames(collection: PartStore, kept: list[int], head: WhiteningHead) -> GoldenFrames:
    """A few of the parts, and one damaged on purpose, with the scores that follow from the statistics."""
    sample = GoldenSample()
    for index in kept:
        sample.offer(collection.frame(index), collection.reduced(index))
    sample.add_damaged(collection.reduced_of)
    return GoldenFrames(np.stack(sample.frames), head.scores(np.stack(sample.reduced)).score.astype(np.float64))


def frame_reference(
    old: Mapping[str, NDArray[Any]], collection: PartStore, kept: list[int], *, sequential: bool, forget: bool
) -> Arrays:
    """How good frames look now; and how they looked before, unless that is to be forgotten.

    Args:
        old: Arrays of the old bundle's ``reference.npz``.
        collection: The parts.
        kept: Those that are good.
        sequential: Neighbouring parts resemble each other.
        forget: They show another product.
    """
    statistics = ReferenceStatistics()
    for index in kept:
        frame = collection.frame(index)
        statistics.update(frame, frame, tuple(old["frame_size"].tolist()) if "frame_size" in old else ())
    arrays = _as_whole_frames_were(statistics.arrays(sequential=sequential), old)
    if forget:
        return arrays
    both = merged_reference([old, arrays], [collection.frame(index) for index in kept])
    return {**both, **{name: arrays[name] for name in PER_FRAME_ARRAYS}}  # as the scores, which are those of the parts


def score_arrays(collection: PartStore, kept: list[int], scores: Scores) -> Arrays:
    """Scores of the parts that were learnt, and the pictures of the highest.

    Args:
        collection: The parts.
        kept: Those that are good.
        scores: Theirs.
    """
    order = np.argsort(-scores.score, kind="stable")[:HIGHEST]
    chosen = [kept[row] for row in order]
    return {
        "good_scores": scores.score.astype(np.float64),
        "highest_frames": np.stack([collection.frame(index) for index in chosen]),
        "highest_names": np.array([collection.names[index] for index in chosen]),
        "highest_scores": scores.score[order].astype(np.float64),
        "highest_maps": scores.map[order],
        "suspicious_names": np.array([], np.str_),
        "suspicious_scores": np.array([], np.float64),
    }


def _as_whole_frames_were(arrays: Arrays, old: Mapping[str, NDArray[Any]]) -> Arrays:
    """The size of frames and how still they may stand, of which network inputs tell nothing, as they were."""
    arrays = {name: array for name, array in arrays.items() if name not in {"frame_size", "still_at_most"}}
    whole = {name: old[name] for name in ("frame_size", "still_at_most") if name in old}
    before = dict(zip(old.get("check_names", ()), old.get("check_limits", ()), strict=True))
    limits = [
        before.get(name, np.nan) if name in {"frozen", "resolution"} else limit
        for name, limit in zip(arrays["check_names"], arrays["check_limits"], strict=True)
    ]
    return {**arrays, **whole, "check_limits": np.array(limits, np.float64)}
