"""Pictures of drilled plates that do not sit still, drawn: they have structure to be found again by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.imaging.preprocess import Region

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

FRAME_PX = 160
REGION = Region(24, 24, 112, 112)
LABEL = Region(60, 60, 30, 24)
"""Where a code is printed on a plate that is not displaced."""


def plate(number: int, right: int = 0, down: int = 0, *, scratched: bool = False, code: bool = False) -> Image:
    """One plate, (160, 160, 3), uint8 BGR, displaced; each number has its own light, noise and code."""
    random = np.random.default_rng(number)
    picture = np.full((FRAME_PX, FRAME_PX, 3), (52, 60, 58), np.uint8)
    left, top = 36 + right, 40 + down
    cv2.rectangle(picture, (left, top), (left + 88, top + 80), (150, 160, 165), -1)
    for x, y, radius in ((12, 12, 6), (74, 14, 8), (16, 64, 7), (70, 62, 10)):
        cv2.circle(picture, (left + x, top + y), radius, (40, 42, 45), -1, cv2.LINE_AA)
    if scratched:
        cv2.line(picture, (left + 30, top + 8), (left + 52, top + 16), (20, 20, 60), 2)
    light = random.normal(1.0, 0.02)
    noisy = np.clip(picture * light + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    if code:
        cells = random.integers(0, 2, (4, 5), np.uint8) * 255
        cells = cv2.resize(cells, (LABEL.width - 4, LABEL.height - 4), interpolation=cv2.INTER_NEAREST)
        x, y = LABEL.x + 2 + right, LABEL.y + 2 + down
        noisy[y : y + cells.shape[0], x : x + cells.shape[1]] = cells[..., None]
    return noisy


def displaced(count: int, farthest_px: int, *, seed: int = 0, first: int = 0, code: bool = False) -> list[Image]:
    """Plates, each somewhere else."""
    places = np.random.default_rng(seed).integers(-farthest_px, farthest_px, (count, 2), endpoint=True)
    return [plate(first + number, int(x), int(y), code=code) for number, (x, y) in enumerate(places)]
