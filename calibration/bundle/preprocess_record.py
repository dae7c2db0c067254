"""The preprocessing in a bundle: what a person may read in the manifest, arrays in ``reference.npz``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.bundle.manifest import AlignmentRecord, IgnoredRecord, PreprocessRecord, RegionRecord
from calibration.imaging.alignment import Alignment
from calibration.imaging.ignore_mask import IgnoreMask
from calibration.imaging.preprocess import Preprocess, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import PartLocation

_REFERENCE = "alignment_reference"
_LABELS = "ignored_labels"


def preprocess_to_record(
    preprocess: Preprocess, places: Sequence[PartLocation], *, divide_brightness: bool
) -> PreprocessRecord:
    """For the manifest.

    Args:
        preprocess: What to record.
        places: Where it found the part on each good image.
        divide_brightness: Whether the network does.
    """
    region, alignment, ignored = preprocess.region, preprocess.alignment, preprocess.ignore_mask
    return PreprocessRecord(
        height=preprocess.height,
        width=preprocess.width,
        region=None
        if region is None
        else RegionRecord(x=region.x, y=region.y, width=region.width, height=region.height),
        divide_brightness=divide_brightness,
        frame_size=preprocess.frame_size,
        alignment=None if alignment is None else _alignment_record(alignment, places),
        ignored=None
        if ignored is None
        else IgnoredRecord(share=round(float(ignored.area.mean()), 4), colours=ignored.colours.tolist()),
    )


def preprocess_to_arrays(preprocess: Preprocess) -> dict[str, NDArray[Any]]:
    """For ``reference.npz``: ``alignment_reference`` (rows, columns, 2) and ``ignored_labels`` (height, width)."""
    arrays: dict[str, NDArray[Any]] = {}
    if preprocess.alignment is not None:
        arrays[_REFERENCE] = preprocess.alignment.reference
    if preprocess.ignore_mask is not None:
        arrays[_LABELS] = preprocess.ignore_mask.labels
    return arrays


def preprocess_from_record(record: PreprocessRecord, array: Callable[[str], NDArray[Any]]) -> Preprocess:
    """As it was recorded.

    Args:
        record: In the manifest.
        array: One of ``reference.npz``, by name; asked for only those that it takes.
    """
    return Preprocess(
        record.height,
        record.width,
        region=Region(**record.region.model_dump()) if record.region else None,
        frame_size=record.frame_size,
        alignment=_alignment(record.alignment, array) if record.alignment else None,
        ignore_mask=IgnoreMask(array(_LABELS), np.array(record.ignored.colours, np.uint8)) if record.ignored else None,
    )


def _alignment(record: AlignmentRecord, array: Callable[[str], NDArray[Any]]) -> Alignment:
    least_prominence = math.inf if record.least_prominence is None else record.least_prominence
    return Alignment(array(_REFERENCE), record.limit_px, least_prominence)


def _alignment_record(alignment: Alignment, places: Sequence[PartLocation]) -> AlignmentRecord:
    found = [place for place in places if place.displacement is not None]
    far_px = [max(map(abs, place.displacement)) for place in found if place.displacement and not place.too_far]
    return AlignmentRecord(
        limit_px=alignment.limit_px,
        least_prominence=alignment.least_prominence if alignment.is_on else None,
        followed=len(far_px),
        too_far=len(found) - len(far_px),
        not_found=len(places) - len(found),
        median_px=float(np.median(far_px)) if far_px else None,
        p99_px=float(np.quantile(far_px, 0.99)) if far_px else None,
    )
