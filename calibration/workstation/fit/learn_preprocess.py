"""What the preprocessing learns from the good images: the reference to align by, the colour of what is ignored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calibration.imaging.preprocess import prepare_image
from calibration.workstation.fit.ignored_areas import IgnoredAreas
from calibration.workstation.fit.registration import AlignmentLearner

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Preprocess
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.settings import PreprocessRequest


def learn_preprocess(
    images: Images, preprocess: Preprocess, request: PreprocessRequest, progress: Progress
) -> Preprocess:
    """Add what one pass over the images teaches; without a request, the preprocessing stays as it is.

    Raises:
        SettingError: The largest displacement makes no sense; a mask has not the frames' size, or covers nothing or
            everything.
        DatasetError: The frames are of several sizes, or the region of interest does not fit into one.
    """
    if request.align_px is None and not request.ignored:
        return preprocess
    areas: IgnoredAreas | None = None
    for number, (name, image) in enumerate(images, start=1):
        if areas is None:
            preprocess = replace(preprocess, frame_size=(image.shape[0], image.shape[1]))
        frame, (region, *_) = prepare_image(preprocess, name, image)
        if areas is None:
            alignment = None if request.align_px is None else AlignmentLearner(request.align_px, region)
            areas = IgnoredAreas(request.ignored, preprocess, region)
        areas.add(frame)
        if alignment is not None:
            alignment.add(image)
        progress("looking", number, len(images))
    if areas is None:
        return preprocess
    learned = None if alignment is None else alignment.learned(areas.labels, sequential=images.sequential)
    return replace(preprocess, alignment=learned, ignore_mask=areas.learned())
