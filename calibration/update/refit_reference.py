"""Arrays of a refitted bundle: appearance of good frames, golden frames and scores of the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from calibration.bundle.golden_frames import GoldenFrames, GoldenSample
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


def golden_frames(parts: PartStore, kept: list[int], head: WhiteningHead) -> GoldenFrames:
    """A few of the parts, and a damaged one, with their scores by the head."""
    sample = GoldenSample()
    for index in kept:
        sample.offer(parts.frame(index), parts.reduced(index))
    sample.add_damaged(parts.reduce)
    return GoldenFrames(np.stack(sample.frames), head.scores(np.stack(sample.reduced)).score.astype(np.float64))


def frame_reference(
    old: Mapping[str, NDArray[Any]], parts: PartStore, kept: list[int], *, sequential: bool, forget: bool
) -> Arrays:
    """Reference statistics of the parts' frames, merged with the old ones.

    Args:
        old: Arrays of the old bundle's ``reference.npz``.
        parts: Collected parts.
        kept: Indices of the good ones.
        sequential: Neighbouring parts resemble each other.
        forget: Leave the old statistics out, for another product.
    """
    statistics = ReferenceStatistics()
    for index in kept:
        frame = parts.frame(index)
        statistics.update(frame, frame, tuple(old["frame_size"].tolist()) if "frame_size" in old else ())
    arrays = _with_frame_limits(statistics.arrays(sequential=sequential), old)
    if forget:
        return arrays
    both = merged_reference([old, arrays], [parts.frame(index) for index in kept])
    return {**both, **{name: arrays[name] for name in PER_FRAME_ARRAYS}}  # one value per part, as the scores


def score_arrays(parts: PartStore, kept: list[int], scores: Scores) -> Arrays:
    """Scores of the good parts ``kept``, with the frames and maps of the highest."""
    order = np.argsort(-scores.score, kind="stable")[:HIGHEST]
    highest = [kept[row] for row in order]
    return {
        "good_scores": scores.score.astype(np.float64),
        "highest_frames": np.stack([parts.frame(index) for index in highest]),
        "highest_names": np.array([parts.names[index] for index in highest]),
        "highest_scores": scores.score[order].astype(np.float64),
        "highest_maps": scores.map[order],
        "suspicious_names": np.array([], np.str_),
        "suspicious_scores": np.array([], np.float64),
    }


def _with_frame_limits(arrays: Arrays, old: Mapping[str, NDArray[Any]]) -> Arrays:
    """Keep the frame size and the standstill limits, which network inputs say nothing about."""
    arrays = {name: array for name, array in arrays.items() if name not in {"frame_size", "still_at_most"}}
    whole = {name: old[name] for name in ("frame_size", "still_at_most") if name in old}
    before = dict(zip(old.get("check_names", ()), old.get("check_limits", ()), strict=True))
    limits = [
        before.get(name, np.nan) if name in {"frozen", "resolution"} else limit
        for name, limit in zip(arrays["check_names"], arrays["check_limits"], strict=True)
    ]
    return {**arrays, **whole, "check_limits": np.array(limits, np.float64)}
