"""What a refitted bundle will find: synthetic defects in collected parts, at the scale of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from calibration.bundle.manifest import ForecastRecord
from calibration.detectors.damaged_images import DamagedImages
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.synthetic_defects import MOST_DRAWN, planned_defects, with_defect
from calibration.statistics.forecast import Forecast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.imaging.region import Region
    from calibration.progress import Progress
    from calibration.statistics.scores import Scores
    from calibration.statistics.threshold import WorkingPoint
    from calibration.update.part_store import PartStore


class _DamagedPart(NamedTuple):
    """A part with a synthetic defect.

    Attributes:
        part: Its index.
        number: Of the defect.
        pictures: The inspected region without and with the defect, as large as in the frame.
        frame: The network input with the defect.
    """

    part: int
    number: int
    pictures: tuple[Image, Image]
    frame: Image


def damaged_for_network(bundle: Bundle, parts: PartStore, kept: list[int], progress: Progress) -> DamagedImages:
    """Parts with defects, scored by the bundle's network, which has not learned from these parts."""
    damaged = DamagedImages(None)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        for each in _drawn(bundle, parts, kept, progress):
            damaged.add_scored(each.number, each.pictures, engine(each.frame).score)
    return damaged


def damaged_for_statistics(bundle: Bundle, parts: PartStore, kept: list[int], progress: Progress) -> DamagedImages:
    """Parts with defects, to be scored with the fold that each is held out with; originals are indices of parts."""
    damaged = DamagedImages(parts.another_store())
    for each in _drawn(bundle, parts, kept, progress):
        damaged.add(each.part, each.number, each.pictures, parts.reduce(each.frame))
    return damaged


def forecast_record(
    bundle: Bundle, damaged: DamagedImages, scores: Scores, point: WorkingPoint
) -> tuple[ForecastRecord, dict[str, NDArray[Any]]]:
    """Record and arrays of a refitted bundle; ``bundle`` is the old one, ``scores`` and ``point`` are the new ones."""
    region, good = _region_of(bundle), scores.score.astype(np.float64)
    arrays = damaged.arrays(min(region.width, region.height))
    forecast = Forecast.of({**arrays, "good_scores": good}, point)
    before = bundle.manifest.forecast
    return ForecastRecord.of(forecast, None if before is None else before.mm_per_pixel), arrays


def _region_of(bundle: Bundle) -> Region:
    """The inspected region, or one as large as the network input where the bundle does not know the frame."""
    preprocess, size = bundle.preprocess, bundle.reference().get("frame_size", ())
    rows, columns = map(int, size) if len(size) else (preprocess.height, preprocess.width)
    return preprocess.area(np.empty((rows, columns)))


def _drawn(bundle: Bundle, parts: PartStore, kept: list[int], progress: Progress) -> Iterator[_DamagedPart]:
    """Draw into a sample of the parts ``kept``.

    Only network inputs are kept of parts. They are enlarged to the region, so that sides and widths are those of the
    frame, and what a defect changes there is added to the network input.
    """
    preprocess, region = bundle.preprocess, _region_of(bundle)
    planned, inspected = planned_defects(len(kept), MOST_DRAWN), preprocess.inspected_mask(region)
    chosen = np.linspace(0, len(kept) - 1, len(planned)).round().astype(int)
    other: Image | None = None
    for turn, (numbers, row) in enumerate(zip(planned, chosen, strict=True), start=1):
        frame = parts.frame(kept[row])
        pixels = np.asarray(cv2.resize(frame, (region.width, region.height), interpolation=cv2.INTER_LINEAR), np.uint8)
        before = preprocess.input_from(pixels).astype(np.int16)
        for number in numbers:
            changed = with_defect(pixels, number, np.random.default_rng(number), other=other, inspected=inspected)
            damaged = np.clip(frame + (preprocess.input_from(changed) - before), 0, 255).astype(np.uint8)
            yield _DamagedPart(kept[row], number, (pixels, changed), damaged)
        other = pixels
        progress("drawing", turn, len(planned))
