"""Synthetic defects in some of the good images, as the camera would see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.region import crop_padded
from calibration.imaging.synthetic_defects import affordable_defects, planned_defects, with_defect
from calibration.workstation.fit.review import read_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.detectors.damaged_images import DamagedImages
    from calibration.imaging.preprocess import Image
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.fit.extraction import Extraction


def draw_defects(  # noqa: PLR0913, PLR0917 - into what, how, where to
    images: Images,
    names: Sequence[str],
    extraction: Extraction,
    damaged: DamagedImages,
    threads: int,
    progress: Progress,
) -> float:
    """Draw into a sample of the images, spread over all.

    Args:
        images: They are read a second time.
        names: Of the images that features were extracted from.
        extraction: How.
        damaged: Receives the images with a defect.
        threads: Of the network.
        progress: Receives the number of images done.

    Returns:
        The shorter side of the inspected region, in frame pixels; its median, if images are of several sizes.

    Raises:
        DatasetError: An image cannot be read any more.
    """
    planned = planned_defects(len(names), affordable_defects(len(names)))
    chosen = np.linspace(0, len(names) - 1, len(planned)).round().astype(int).tolist()
    rows = {names[index]: index * (1 + extraction.copies) for index in chosen}
    preprocess, sides = extraction.preprocess, []
    other: Image | None = None
    with OnnxRuntimeEngine(extraction.network, threads) as engine:
        for numbers, (name, image) in zip(planned, read_again(images, list(rows)), strict=True):
            region = preprocess.locate(image).region
            pixels, inspected = crop_padded(image, region), preprocess.inspected_mask(region)
            for number in numbers:
                changed = with_defect(pixels, number, np.random.default_rng(number), other=other, inspected=inspected)
                reduced = engine.reduced(preprocess.input_from(changed))
                damaged.add(rows[name], number, (pixels, changed), reduced)
            other = pixels
            sides.append(min(pixels.shape[:2]))
            progress("drawing", len(sides), len(planned))
    return float(np.median(sides))
