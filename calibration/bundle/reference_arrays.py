"""The arrays of ``reference.npz``: which form each has, so that nothing else is computed with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_NUMBERS = "fiu"
# Kind of values, and the size along each axis: a number, a letter for the same size everywhere, or None for any.
_FORMS: dict[str, tuple[str, tuple[int | str | None, ...]]] = {
    "brightness": (_NUMBERS, ("images", 3)),
    "sharpness": (_NUMBERS, ("images",)),
    "edges": (_NUMBERS, ("images",)),
    "thumbnail_mean": (_NUMBERS, (32, 32)),
    "thumbnail_std": (_NUMBERS, (32, 32)),
    "small_frames": ("u", (None, 32, 32)),
    "frame_size": (_NUMBERS, (None,)),
    "still_at_most": (_NUMBERS, ()),
    "check_names": ("U", ("checks",)),
    "check_limits": (_NUMBERS, ("checks",)),
    "check_notes": ("U", ("checks",)),
    "blocks_least": ("u", ("rows", "columns", 3)),
    "blocks_most": ("u", ("rows", "columns", 3)),
    "structure": (_NUMBERS, (None, None, 2)),
    "moved_recognised": (_NUMBERS, ()),
    "moved_seen_from": (_NUMBERS, (2,)),
    "alignment_reference": (_NUMBERS, (None, None, 2)),
    "ignored_labels": (_NUMBERS, ("height", "width")),
    "golden_frames": ("u", (None, "height", "width", 3)),
    "golden_scores": (_NUMBERS, (None,)),
    "golden_weights": (_NUMBERS, (None,)),
    "good_scores": (_NUMBERS, ("images",)),
    "highest_frames": ("u", ("highest", "height", "width", 3)),
    "highest_names": ("U", ("highest",)),
    "highest_scores": (_NUMBERS, ("highest",)),
    "highest_maps": (_NUMBERS, ("highest", None, None)),
    "suspicious_names": ("U", ("suspicious",)),
    "suspicious_scores": (_NUMBERS, ("suspicious",)),
    "defect_kinds": ("U", ("defects",)),
    "defect_px": (_NUMBERS, ("defects",)),
    "defect_scores": (_NUMBERS, ("defects",)),
    "defect_pictures": ("u", (None, None, None, 3)),
}

_MAY_BE_NAN = {
    "check_limits",  # off
    "moved_seen_from",  # not seen
    "golden_scores",  # an engine is compared with them
    "alignment_reference",
}
_NOT_EMPTY = {"images", "defects"}
_BRIGHTEST = 255.0


def odd_array(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """What is wrong with the first array that has another form than its name says; None if all are right."""
    sizes: dict[int | str, int] = {}
    for name, array in arrays.items():
        kinds, form = _FORMS.get(name, (array.dtype.kind, (None,) * array.ndim))
        fits = array.dtype.kind in kinds and array.ndim == len(form)
        for expected, size in zip(form, array.shape if fits else (), strict=False):
            known = expected if isinstance(expected, int) else sizes.setdefault(expected or "", size)
            fits = fits and (expected is None or known == size) and (expected not in _NOT_EMPTY or size > 0)
        if not fits:
            return f"its array {name} is {array.dtype} of shape {array.shape}"
        if array.dtype.kind == "f" and name not in _MAY_BE_NAN and not np.isfinite(array).all():
            return f"its array {name} has values that are not finite numbers"
        if name == "brightness" and not 0.0 <= array.min() <= array.max() <= _BRIGHTEST:
            return f"its array {name} has values that no pixel has"
    return None
