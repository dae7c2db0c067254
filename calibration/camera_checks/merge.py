"""How good frames looked, of several bundles together.

What is a figure of every frame, or a mean, is added exactly. Limits of the camera checks are not: they are tails of
figures that a bundle does not keep. Of each the laxest is taken, since the camera of every bundle was in order; a check
that is off in one is off. Whether all show the same view is measured again, on the frames that bundles keep.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.camera_checks import frame_statistics
from calibration.camera_checks.limits import Limit, separated_limit
from calibration.camera_checks.reference import HALF_HIDDEN, MOVED, RECOGNISED
from calibration.imaging.orientation import Structure, edge_directions
from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

    Arrays = Mapping[str, NDArray[Any]]

PER_FRAME_ARRAYS = ("brightness", "sharpness", "edges")
"""Of every good frame, in their order, as are their scores; bundles of older software lack some."""

_BELOW = frozenset({"dark", "frozen", "blurred_detail", "blurred_edges"})  # limits that a good frame lies above


def merged_reference(parts: Sequence[Arrays], good: Sequence[Image]) -> dict[str, NDArray[Any]]:
    """The arrays that ``ReferenceStatistics.arrays`` gives, from those of several bundles.

    Args:
        parts: Arrays of each bundle's ``reference.npz``.
        good: Good frames that the bundles keep, as network input; one or more.
    """
    sizes = {tuple(part.get("frame_size", np.array(())).tolist()) for part in parts}
    arrays: dict[str, NDArray[Any]] = {
        **{
            name: np.concatenate([part[name] for part in parts])
            for name in PER_FRAME_ARRAYS
            if all(name in each for each in parts)
        },
        **_thumbnail(parts),
        "frame_size": np.array(sizes.pop() if len(sizes) == 1 else (), np.int64),
    }
    still = [part["still_at_most"] for part in parts if "still_at_most" in part]
    if still:
        arrays["still_at_most"] = np.array(max(still))
    limits = {str(name): _laxest(str(name), parts) for name in parts[0].get("check_names", ())}
    if "resolution" in limits and not len(arrays["frame_size"]):
        limits["resolution"] = Limit(math.nan, "good frames of several sizes")
    if "blocked" in limits and all("blocks_least" in part for part in parts):
        arrays["blocks_least"] = np.min([part["blocks_least"] for part in parts], axis=0)
        arrays["blocks_most"] = np.max([part["blocks_most"] for part in parts], axis=0)
    if "moved" in limits and limits["moved"].is_on:
        limits["moved"] = _moved(arrays, parts, limits["moved"], good)
    return {
        **arrays,
        "check_names": np.array(list(limits), np.str_),
        "check_limits": np.array([limit.value for limit in limits.values()], np.float64),
        "check_notes": np.array([limit.note for limit in limits.values()], np.str_),
    }


def _thumbnail(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    counts = [len(part["sharpness"]) for part in parts]
    mean = np.average([part["thumbnail_mean"] for part in parts], axis=0, weights=counts)
    squares = [part["thumbnail_std"] ** 2 + (part["thumbnail_mean"] - mean) ** 2 for part in parts]
    return {"thumbnail_mean": mean, "thumbnail_std": np.sqrt(np.average(squares, axis=0, weights=counts))}


def _laxest(name: str, parts: Sequence[Arrays]) -> Limit:
    found = [_limits(part).get(name, Limit(math.nan, "made before there was this check")) for part in parts]
    off = next((limit for limit in found if not limit.is_on), None)
    if off is not None:
        return off
    return (min if name in _BELOW else max)(found, key=lambda limit: limit.value)


def _limits(part: Arrays) -> dict[str, Limit]:
    if "check_names" not in part:
        return {}
    columns = (part[f"check_{each}"].tolist() for each in ("names", "limits", "notes"))
    return {name: Limit(value, note) for name, value, note in zip(*columns, strict=True)}


def _moved(arrays: dict[str, NDArray[Any]], parts: Sequence[Arrays], laxest: Limit, good: Sequence[Image]) -> Limit:
    counts = [len(part["sharpness"]) for part in parts]
    mean = np.average([part["structure"] for part in parts], axis=0, weights=counts).astype(np.float32)
    structure = Structure(mean)
    if not structure.is_recognisable:
        return Limit(math.nan, "nothing stands still")
    greys = [to_grey(frame) for frame in good]
    found = [structure.displacement(edge_directions(frame_statistics.thumbnail(grey))) for grey in greys]
    measured = separated_limit(np.array([each.elsewhere - each.at_zero for each in found]), MOVED, sequential=False)
    if not measured.is_on or not _same_view(parts, laxest.value):
        return Limit(math.nan, "the bundles do not show the same view")
    limit = max(laxest, measured, key=lambda each: each.value)
    before = min(float(part["moved_recognised"]) for part in parts) / RECOGNISED
    here = min(before, float(np.median([each.at_zero for each in found])))
    cells = structure.smallest_visible_shift(HALF_HIDDEN * here, limit.value)
    if cells == (None, None):
        return Limit(math.nan, "too little stands still")
    pixels = frame_statistics.pixels_in_cell(*greys[0].shape)
    arrays["structure"] = mean
    arrays["moved_recognised"] = np.array(RECOGNISED * here)
    arrays["moved_seen_from"] = np.array([math.nan if each is None else each * pixels for each in cells])
    return limit


def _same_view(parts: Sequence[Arrays], limit: float) -> bool:
    """Whether no bundle would say of another's mean view that the camera has moved."""
    for part in parts:
        structure = Structure(part["structure"])
        found = [structure.displacement(other["structure"]) for other in parts]
        if any(each.elsewhere - each.at_zero > limit and each.elsewhere >= part["moved_recognised"] for each in found):
            return False
    return True
