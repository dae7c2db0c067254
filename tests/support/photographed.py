"""Pictures of parts that were photographed several times, drawn: each part has a grain of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.imaging.preprocess import Image

SIDE = 64


def photographed(part: int, times: int) -> list[Image]:
    """One part several times, (64, 64, 3), uint8 BGR each: another light, another noise, each second one as JPEG."""
    random = np.random.default_rng(part)
    grain = cv2.GaussianBlur(random.normal(0, 60, (SIDE, SIDE)), (0, 0), 1.5)
    pictures = []
    for number in range(times):
        noise = random.normal(0, 1, (SIDE, SIDE))
        grey = np.clip((120 + grain) * random.uniform(0.97, 1.03) + noise, 0, 255).astype(np.uint8)
        if number % 2:
            encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
            grey = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
        pictures.append(np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8))
    return pictures


def save_photographed(folder: Path, first: int, parts: int, times: int) -> Path:
    """Write parts as part007_0.png and so on."""
    folder.mkdir()
    for part in range(first, first + parts):
        for number, picture in enumerate(photographed(part, times)):
            assert cv2.imwrite(str(folder / f"part{part:03}_{number}.png"), picture)
    return folder
