"""The size of the network input: the aspect of what is inspected, and as many pixels as the time allows."""

from __future__ import annotations

import time
from itertools import islice
from math import log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from calibration.backbones.backbone import Backbone
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.network.fusion import feature_network
from calibration.plain_text import rounded
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.fit.backbone_choice import fixed_size, open_backbone
from calibration.workstation.settings import USUAL_SIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calibration.imaging.preprocess import Preprocess
    from calibration.workstation.dataset import Images, NamedImage
    from calibration.workstation.fit.backbone_choice import BackboneChoice
    from calibration.workstation.settings import Settings

_USUAL_PIXELS = USUAL_SIDE * USUAL_SIDE
_STEP_PX = 32
_LEAST_PX = 64
_PIXELS_MAY_DIFFER = 0.2
_IMAGES = 25
_MIDDLE_HALF, _ONE_ASPECT = (0.25, 0.75), 1.25
_RUNS = 7
_TRIES = 4
_SHRINK = 0.8


def size_of_aspect(rows: int, columns: int, pixels: float) -> tuple[int, int]:
    """Height and width with the aspect of a region of rows x columns, so that a network pixel is nearly square in it.

    Both are multiples of 32, which all convolutional backbones take, and 64 at least. Of those with this number of
    pixels, up to a fifth more or less, the one whose aspect is nearest.
    """
    sides = range(_LEAST_PX, max(_LEAST_PX, round(pixels / _LEAST_PX)) + 2 * _STEP_PX, _STEP_PX)
    sizes = [(height, width) for height in sides for width in sides]
    near = [size for size in sizes if abs(log(size[0] * size[1] / pixels)) <= _PIXELS_MAY_DIFFER]

    def stretched(size: tuple[int, int]) -> tuple[float, float]:
        height, width = size
        return round(abs(log(height * columns / (width * rows))), 3), abs(log(height * width / pixels))

    return min(near or [(_LEAST_PX, _LEAST_PX)], key=stretched)


def network_sizes(images: Images, choice: BackboneChoice | Backbone, settings: Settings) -> list[tuple[int, int]]:
    """Height and width of the network input, and after it what ``--auto`` tries as well.

    What was asked for stays, and a backbone that takes one size only gets that. Any other gets the aspect of the
    region, or of the images, with as many pixels as 224x224; with ``max_ms``, as many as it computes in this time here,
    but no more than the region has, and tuning tries those of 224x224 as well.

    Raises:
        SettingError: The time is too short for any size.
        BackboneError: The backbone cannot be loaded.
    """
    preprocess, max_ms = settings.preprocess, settings.learn.max_ms
    if not settings.learn.choose_size:
        return [(preprocess.height, preprocess.width)]
    if isinstance(choice, Backbone):
        return [choice.input_size]
    fixed = fixed_size(choice)
    if fixed is not None:
        return [fixed]
    rows, columns = _usual_size(images, preprocess)
    usual = size_of_aspect(rows, columns, _USUAL_PIXELS)
    if max_ms is None:
        return [usual]
    largest = _within(max_ms, (rows, columns), choice, settings)
    return [largest, usual] if area(usual) < area(largest) else [largest]


def area(size: tuple[int, int]) -> int:
    """Pixels of a size."""
    return size[0] * size[1]


def _usual_size(images: Images, preprocess: Preprocess) -> tuple[int, int]:
    """Rows and columns of the region, or of the images; a square where these have no aspect in common."""
    if preprocess.region is not None:
        return preprocess.region.height, preprocess.region.width
    sizes = np.array([image.shape[:2] for _, image in _some(images)])
    if not len(sizes):
        return USUAL_SIDE, USUAL_SIDE  # learning says why no image can be read
    rows, columns = np.median(sizes, axis=0)
    low, high = np.quantile(sizes[:, 0] / sizes[:, 1], _MIDDLE_HALF)
    if high > _ONE_ASPECT * low:
        rows = columns = sqrt(rows * columns)
    return round(rows), round(columns)


def _some(images: Images) -> Iterator[NamedImage]:
    """Images from all over a folder; frames of a video are of one size."""
    if not isinstance(images, ImageFiles):
        return islice(images, 1)
    step = max(1, len(images.paths) // _IMAGES)
    return iter(ImageFiles(images.source, images.paths[::step]))


def _within(max_ms: float, region: tuple[int, int], choice: BackboneChoice, settings: Settings) -> tuple[int, int]:
    """The largest size that the network computes in this time, found from the time that the last one took."""
    most, pixels = max(_USUAL_PIXELS, area(region)), float(_USUAL_PIXELS)
    fitting: dict[tuple[int, int], float] = {}
    tried: dict[tuple[int, int], float] = {}
    for _ in range(_TRIES):
        size = size_of_aspect(*region, pixels)
        if size in tried:
            break
        tried[size] = _network_ms(size, choice, settings)
        if tried[size] <= max_ms:
            fitting[size] = tried[size]
            pixels = min(most, area(size) * max_ms / tried[size])
        else:
            pixels = _SHRINK * area(size) * max_ms / tried[size]
    if not fitting:
        size, fastest_ms = min(tried.items(), key=lambda each: each[1])
        raise SettingError(
            what=f"--max-ms {max_ms:g} is too short: at {size[0]}x{size[1]} the network takes "
            f"{rounded(fastest_ms, 3)} ms here",
            remedy="give more time, or a faster backbone, such as filterbank",
        )
    return max(fitting, key=area)


def _network_ms(size: tuple[int, int], choice: BackboneChoice, settings: Settings) -> float:
    """Time of the network up to its head, for one frame: the fastest of some runs."""
    network = feature_network(
        open_backbone(choice, size), settings.detector, divide_brightness=settings.divide_brightness
    )
    frame = np.zeros((*size, 3), np.uint8)
    times_ms = []
    with OnnxRuntimeEngine(network.SerializeToString(), settings.threads) as engine:
        for _ in range(_RUNS):
            start_ns = time.perf_counter_ns()
            engine.reduced(frame)
            times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return min(times_ms)
