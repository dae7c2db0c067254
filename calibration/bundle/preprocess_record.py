"""Stores the preprocessing in a bundle: its settings in the manifest, its arrays in ``reference.npz``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.bundle.manifest import AlignmentRecord, IgnoredRecord, PreprocessRecord
from calibration.imaging.alignment import Alignment
from calibration.imaging.ignore_mask import IgnoreMask
from calibration.imaging.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import PartLocation

_REFERENCE = "alignment_reference"
_LABELS = "ignored_labels"


def preprocess_to_record(
    preprocess: Preprocess, locations: Sequence[PartLocation], *, divide_brightness: bool
) -> PreprocessRecord:
    """The entry in the manifest.

    Args:
        preprocess: What to record.
        locations: Where it found the part in each good image.
        divide_brightness: Whether the network divides each frame by its brightness.
    """
    alignment, mask = preprocess.alignment, preprocess.ignore_mask
    return PreprocessRecord(
        height=preprocess.height,
        width=preprocess.width,
        region=preprocess.region,
        divide_brightness=divide_brightness,
        frame_size=preprocess.frame_size,
        alignment=_alignment_record(alignment, locations) if alignment else None,
        ignored=IgnoredRecord(share=round(float(mask.area.mean()), 4), colours=mask.colours.tolist()) if mask else None,
        averages_each_side=preprocess.averages_each_side,
        crop=preprocess.crop,
    )


def preprocess_to_arrays(preprocess: Preprocess) -> dict[str, NDArray[Any]]:
    """For ``reference.npz``: ``alignment_reference`` (rows, columns, 2) and ``ignored_labels`` (height, width)."""
    arrays: dict[str, NDArray[Any]] = {}
    if preprocess.alignment is not None:
        arrays[_REFERENCE] = preprocess.alignment.reference
    if preprocess.ignore_mask is not None:
        arrays[_LABELS] = preprocess.ignore_mask.labels
    return arrays


def preprocess_from_record(record: PreprocessRecord, load: Callable[[str], NDArray[Any]]) -> Preprocess:
    """The recorded preprocessing.

    Args:
        record: The entry in the manifest.
        load: Loads an array of ``reference.npz``, by name; called only for those that are needed.
    """
    alignment, ignored = None, None
    if record.alignment is not None:
        least_prominence = record.alignment.least_prominence
        alignment = Alignment(
            load(_REFERENCE), record.alignment.limit_px, math.inf if least_prominence is None else least_prominence
        )
    if record.ignored is not None:
        ignored = IgnoreMask(load(_LABELS), np.array(record.ignored.colours, np.uint8))
    return Preprocess(
        record.height,
        record.width,
        record.region,
        record.frame_size,
        alignment,
        ignored,
        record.averages_each_side,
        record.crop,
    )


def _alignment_record(alignment: Alignment, locations: Sequence[PartLocation]) -> AlignmentRecord:
    found = [location for location in locations if location.displacement is not None]
    far_px = [max(map(abs, each.displacement)) for each in found if each.displacement and not each.too_far]
    return AlignmentRecord(
        limit_px=alignment.limit_px,
        least_prominence=alignment.least_prominence if alignment.is_on else None,
        followed=len(far_px),
        too_far=len(found) - len(far_px),
        not_found=len(locations) - len(found),
        median_px=float(np.median(far_px)) if far_px else None,
        p99_px=float(np.quantile(far_px, 0.99)) if far_px else None,
    )
