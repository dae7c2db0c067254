"""Pictures of washers, drawn: small, all a little different, and the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from calibration.imaging.preprocess import Image
    from calibration.workstation.dataset import NamedImage

SIDE = 64


def washer(number: int, *, side: int = SIDE, scratched: bool = False) -> Image:
    """One washer, (side, side, 3), uint8 BGR; each number has its own place, light and noise."""
    random = np.random.default_rng(number)
    picture = np.full((side, side, 3), (52, 60, 58), np.uint8)
    middle = tuple(int(side / 2 + shift) for shift in random.integers(-1, 2, 2))
    cv2.circle(picture, middle, side * 3 // 8, (150, 160, 165), -1, cv2.LINE_AA)
    cv2.circle(picture, middle, side // 6, (40, 42, 45), -1, cv2.LINE_AA)
    if scratched:
        cv2.line(picture, (side // 4, side // 5), (side * 3 // 5, side // 3), (20, 20, 200), 2)
    light = random.normal(1.0, 0.03)
    return np.clip(picture * light + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def save(folder: Path, pictures: Sequence[Image], suffix: str = ".png") -> Path:
    """Write pictures as 000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        assert cv2.imwrite(str(folder / f"{number:03}{suffix}"), picture)
    return folder


class Drawn:
    """Pictures in memory, as ``calibrate`` takes them."""

    source = "drawn"
    left_out: tuple[str, ...] = ()

    def __init__(self, pictures: Sequence[Image], *, sequential: bool = False) -> None:
        self.sequential = sequential
        self.skipped: list[str] = []
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[NamedImage]:
        return ((f"washer {number}", picture) for number, picture in enumerate(self._pictures))

    def again(self, names: Collection[str]) -> Iterator[NamedImage]:
        return ((name, picture) for name, picture in self if name in names)
