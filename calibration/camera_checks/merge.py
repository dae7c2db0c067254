"""The reference statistics of several bundles, merged.

Per-frame values and means are merged exactly. Limits of camera checks cannot be: they are tails of values that a bundle
does not keep. The laxest one is taken, since the camera of each bundle was in order; a check that is off in one bundle
is off. Whether all bundles show the same view is measured again, on the frames that they keep.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.camera_checks import frame_statistics
from calibration.camera_checks.limits import Limit, limit_arrays, limits_from_arrays, separated_limit
from calibration.camera_checks.reference import MOVED, RECOGNISED, REMEMBERED, movement_arrays
from calibration.imaging.orientation import Structure, edge_directions
from calibration.imaging.region import to_grey
from calibration.imaging.thinned_sample import ThinnedSample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

    Arrays = Mapping[str, NDArray[Any]]

PER_FRAME_ARRAYS = ("brightness", "sharpness", "edges")
"""Arrays with a row for each good frame, in the order of the scores; bundles of older software lack some."""

_LOWER_LIMITS = frozenset({"dark", "frozen", "blurred_detail", "blurred_edges"})


def merged_reference(parts: Sequence[Arrays], good: Sequence[Image]) -> dict[str, NDArray[Any]]:
    """Merge the arrays of several bundles into those that ``ReferenceStatistics.arrays`` returns.

    Args:
        parts: Arrays of each bundle's ``reference.npz``.
        good: Good frames that the bundles keep, as network input; one or more.
    """
    sizes = {tuple(part.get("frame_size", np.array(())).tolist()) for part in parts}
    per_frame = [name for name in PER_FRAME_ARRAYS if all(name in part for part in parts)]
    arrays: dict[str, NDArray[Any]] = {
        **{name: np.concatenate([part[name] for part in parts]) for name in per_frame},
        **_thumbnail(parts),
        "frame_size": np.array(sizes.pop() if len(sizes) == 1 else (), np.int64),
    }
    if all("small_frames" in part for part in parts):
        arrays["small_frames"] = _thinned([part["small_frames"] for part in parts])
    still = [part["still_at_most"] for part in parts if "still_at_most" in part]
    if still:
        arrays["still_at_most"] = np.array(max(still))
    known = [limits_from_arrays(part) for part in parts]
    limits = {name: _laxest(name, known) for name in known[0]}
    if "resolution" in limits and not len(arrays["frame_size"]):
        limits["resolution"] = Limit(math.nan, "the good frames have several sizes")
    if "blocked" in limits and all("blocks_least" in part for part in parts):
        arrays["blocks_least"] = np.min([part["blocks_least"] for part in parts], axis=0)
        arrays["blocks_most"] = np.max([part["blocks_most"] for part in parts], axis=0)
    if "moved" in limits and limits["moved"].is_on:
        limits["moved"] = _moved(arrays, parts, limits["moved"], good)
    return {**arrays, **limit_arrays(limits)}


def _thumbnail(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    mean = _weighted_mean(parts, [part["thumbnail_mean"] for part in parts])
    squares = [part["thumbnail_std"] ** 2 + (part["thumbnail_mean"] - mean) ** 2 for part in parts]
    return {"thumbnail_mean": mean, "thumbnail_std": np.sqrt(_weighted_mean(parts, squares))}


def _thinned(frames: Sequence[NDArray[Any]]) -> NDArray[Any]:
    sample = ThinnedSample(REMEMBERED)
    for frame in itertools.chain.from_iterable(frames):
        sample.offer(frame)
    return np.stack(sample.images)


def _weighted_mean(parts: Sequence[Arrays], values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Mean over all good frames, from the means of the bundles."""
    return np.asarray(np.average(values, axis=0, weights=[len(part["sharpness"]) for part in parts]))


def _laxest(name: str, known: Sequence[Mapping[str, Limit]]) -> Limit:
    found = [limits.get(name, Limit(math.nan, "a bundle was made before this check existed")) for limits in known]
    off = next((limit for limit in found if not limit.is_on), None)
    return off or (min if name in _LOWER_LIMITS else max)(found, key=lambda limit: limit.value)


def _moved(arrays: dict[str, NDArray[Any]], parts: Sequence[Arrays], laxest: Limit, good: Sequence[Image]) -> Limit:
    structure = Structure(_weighted_mean(parts, [part["structure"] for part in parts]).astype(np.float32))
    if not structure.is_recognisable:
        return Limit(math.nan, "the good frames share no fixed structure")
    greys = [to_grey(frame) for frame in good]
    found = [structure.displacement(edge_directions(frame_statistics.thumbnail(grey))) for grey in greys]
    measured = separated_limit(np.array([each.elsewhere - each.at_zero for each in found]), MOVED, sequential=False)
    if not measured.is_on or not _same_view(parts, laxest.value):
        return Limit(math.nan, "the bundles do not show the same view")
    limit = max(laxest, measured, key=lambda each: each.value)
    before = min(float(part["moved_recognised"]) for part in parts) / RECOGNISED
    typical = min(before, float(np.median([each.at_zero for each in found])))
    movement = movement_arrays(structure, typical, limit, greys[0].shape)
    if np.isnan(movement["moved_seen_from"]).all():
        return Limit(math.nan, "the good frames share too little fixed structure")
    arrays.update(movement)
    return limit


def _same_view(parts: Sequence[Arrays], limit: float) -> bool:
    """Whether no bundle would report, of another bundle's mean view, that the camera has moved."""
    for part in parts:
        structure = Structure(part["structure"])
        found = [structure.displacement(other["structure"]) for other in parts]
        if any(each.elsewhere - each.at_zero > limit and each.elsewhere >= part["moved_recognised"] for each in found):
            return False
    return True
