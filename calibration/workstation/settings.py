"""How to calibrate, and what every way of calibrating refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.detectors.cross_validation import FOLDS
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.detectors.patchcore import PatchCore
from calibration.errors import DatasetError, ModelTooLargeError, SettingError
from calibration.imaging.region import Region
from calibration.workstation.dataset import ImageFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calibration.bundle.manifest import ChoiceRecord
    from calibration.detectors.contract import Detector
    from calibration.imaging.preprocess import Preprocess
    from calibration.workstation.dataset import Images

Area: TypeAlias = Region | NDArray[np.bool_]

MINIMUM_IMAGES = 2 * FOLDS
AUTO_PX = 0
USUAL_SIDE = 224


@dataclass(frozen=True)
class PreprocessRequest:
    """What the preprocessing learns from the images.

    Attributes:
        align_px: Largest displacement that alignment follows, in frame pixels; ``AUTO_PX``: 5 % of the region's
            shorter side; None: no alignment.
        ignored: Areas that are not inspected: rectangles, and masks of the frame's size.
        choose_size: Choose the size of the network input from the images.
        max_ms: Time that the network may take for one image on this machine, if the size is chosen; None: the usual
            number of pixels.
    """

    align_px: int | None = None
    ignored: Sequence[Area] = ()
    choose_size: bool = False
    max_ms: float | None = None


@dataclass(frozen=True)
class Settings:
    """How to calibrate.

    Attributes:
        preprocess: Frame to network input.
        detector: Method and parameters.
        learn: What is added to ``preprocess`` from the images.
        divide_brightness: Divide each frame by its own mean brightness first.
        augment: Varied copies of each image to learn from as well.
        contamination: Share of the images that may be defective; the suspicious ones are listed accordingly.
        part_of: Name of an image to the part that it shows, where several show the same; None: near copies are found
            from the images; ``folds.each_alone``: all differ.
        tuning_s: Time for choosing detector, brightness and backbone from the images; None: they are as given.
        choice: How the settings were chosen from the images; None where a person chose them.
        false_reject_rate: Share of good parts that may be rejected.
        threshold_rule: ``scores`` of held-out good images set the threshold, or ``chi-square``, the law that they would
            have if features were Gaussian.
        mm_per_pixel: Of the frame, for sizes of defects; None: these are given in pixels alone.
        memory_limit_mib: What the statistics may take; calibration refuses to exceed it.
        threads: Of the network; 0 takes one for each core.
    """

    preprocess: Preprocess
    detector: Detector = field(default_factory=MeanShift)
    learn: PreprocessRequest = PreprocessRequest()
    divide_brightness: bool = False
    augment: int = 0
    contamination: float = 0.0
    part_of: Callable[[str], str | None] | None = None
    tuning_s: float | None = None
    choice: ChoiceRecord | None = None
    false_reject_rate: float = 0.01
    threshold_rule: Literal["scores", "chi-square"] = "scores"
    mm_per_pixel: float | None = None
    memory_limit_mib: int = 4096
    threads: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.augment < 0:
            raise SettingError(what=f"augment = {self.augment} copies makes no sense", remedy="give 0 or more, e.g. 4")
        if self.mm_per_pixel is not None and not 0.0 < self.mm_per_pixel < inf:
            raise SettingError(
                what=f"--mm-per-pixel {self.mm_per_pixel:g} makes no sense", remedy="give a length above 0, e.g. 0.05"
            )
        if not 0.0 <= self.contamination <= 0.5:  # noqa: PLR2004
            raise SettingError(
                what=f"contamination = {self.contamination} is outside 0 to 0.5",
                remedy="give the share of images that may be defective, e.g. 0.05",
            )


def within_memory(settings: Settings, shape: tuple[int, int, int], images: int) -> Settings:
    """The settings, with a memory bank that takes as many patches as the memory allows if all are to be taken."""
    if not isinstance(settings.detector, PatchCore | PatchSvdd):
        return settings
    return replace(settings, detector=settings.detector.within(settings.memory_limit_mib, shape, images))


def refuse_too_large(shape: tuple[int, int, int], images: int, settings: Settings) -> None:
    """Raise ModelTooLargeError if statistics of this many reduced features, (d, h, w) each, take too much memory."""
    channels, height, width = shape
    needed = settings.detector.memory_mib(shape, images)
    if needed > settings.memory_limit_mib:
        raise ModelTooLargeError(
            what=f"{height}x{width} locations of {channels} channels need {needed:,.0f} MiB for their statistics; "
            f"the limit is {settings.memory_limit_mib} MiB",
            remedy=f"choose fewer stages, a smaller --size, {settings.detector.memory_advice}, "
            "or raise --memory-limit-mib",
        )


def least_images(detector: Detector) -> int:
    """The number of images that a detector needs; from fewer than ``MINIMUM_IMAGES``, no false-reject rate follows."""
    return 1 if isinstance(detector, PatchCore) else MINIMUM_IMAGES


def refuse_too_few(count: int, images: Images, least: int = MINIMUM_IMAGES) -> None:
    """Raise DatasetError unless enough images were usable."""
    if count < least:
        skipped = f" ({len(images.skipped)} were not readable: {'; '.join(images.skipped[:3])})"
        copies = len(images.copies) if isinstance(images, ImageFiles) else 0
        raise DatasetError(
            what=f"only {count} usable images in {images.source}{skipped if images.skipped else ''}"
            f"{f'; {copies} more are identical copies of these' if copies else ''}",
            remedy=f"give at least {least}; a hundred or more make a threshold that keeps its promise",
        )
