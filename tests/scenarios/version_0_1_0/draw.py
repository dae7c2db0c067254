"""Draws the pictures of this folder: parts to learn from, parts of the next day, and what the camera then sees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

ROWS, COLUMNS = 48, 56
SHOWN = "ggddddkk"
"""Frames of a round: good, defective, dark; two of them show a part."""


def part(number: int, shot: int = 0, kind: str = "g") -> np.ndarray:
    """A brushed washer on a plain belt, a little displaced; its date code differs from part to part."""
    random = np.random.default_rng(1000 * number + shot)
    picture = np.full((ROWS, COLUMNS), 65, np.uint8)
    x, y = COLUMNS // 2 + random.integers(-2, 3), ROWS // 2 + random.integers(-2, 3)
    cv2.circle(picture, (x, y), 15, 175, -1, cv2.LINE_AA)
    for line in range(-12, 13, 4):
        half = int((14**2 - line**2) ** 0.5)
        cv2.line(picture, (x - half, y + line), (x + half, y + line), 160, 1)
    cv2.circle(picture, (x, y), 5, 65, -1, cv2.LINE_AA)
    cv2.rectangle(picture, (x + 7, y - 2), (x + 8 + number % 4, y + 2), 90, -1)
    if kind == "d":
        cv2.line(picture, (x - 10, y - 8), (x - 3, y + 10), 15, 2)
    noise = random.normal(0, 0.3, (ROWS, COLUMNS)) + random.integers(-2, 3)
    return np.clip((picture + noise) * (0.05 if kind == "k" else 1.0), 0, 255).astype(np.uint8)


def draw(folder: str, pictures: dict[str, np.ndarray]) -> None:
    """Write them, without loss."""
    Path(folder).mkdir(exist_ok=True)
    for name, picture in pictures.items():
        cv2.imwrite(f"{folder}/{name}.png", picture)


draw("good", {f"part{number:02}_{shot}": part(number, shot) for number in range(16) for shot in range(2)})
draw("later", {f"{number:02}": part(100 + number) for number in range(60)})
draw("frames", {f"{number:02}": part(200 + number // 2, number, kind) for number, kind in enumerate(SHOWN)})
