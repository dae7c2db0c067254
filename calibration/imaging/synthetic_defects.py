"""Adds synthetic defects to images of good parts, so that settings can be compared without a defective part.

Cut-paste and scars follow Li et al. 2021 (CutPaste); stains and missing parts are soft and plain patches. They do not
imitate real defects, but like these they are local, of several sizes, and unlike a good part at that location.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

    Float32 = NDArray[np.float32]

SIZES = (0.06, 0.12, 0.24)  # side of the defect, as a share of the image's


def cut_paste(frame: Image, side: int, random: np.random.Generator) -> Image:
    """Paste a piece of the image elsewhere, a little brighter or darker."""
    piece = frame[_random_square(frame, side, random)].astype(np.float32)
    return _pasted(frame, piece * random.uniform(0.8, 1.25), np.ones(piece.shape[:2], np.float32), random)


def scar(frame: Image, side: int, random: np.random.Generator) -> Image:
    """Draw a thin line, lighter or darker than what it crosses."""
    rows, columns = frame.shape[:2]
    start = random.uniform(0, 1, 2) * (columns, rows)
    angle = random.uniform(0, np.pi)
    stop = start + 2 * side * np.array([np.cos(angle), np.sin(angle)])
    line = np.zeros((rows, columns), np.uint8)
    thickness = max(1, round(side / 12))
    cv2.line(line, start.astype(int).tolist(), stop.astype(int).tolist(), 255, thickness, cv2.LINE_AA)
    change = random.choice((-1.0, 1.0)) * random.uniform(0.2, 0.5) * 255
    return _to_image(frame + change * (line.astype(np.float32) / 255)[..., None])


def stain(frame: Image, side: int, random: np.random.Generator) -> Image:
    """Draw a soft blot in a colour of the image, lighter or darker."""
    blot = cv2.GaussianBlur(random.uniform(0, 1, (side, side)).astype(np.float32), (0, 0), max(1.0, side / 8))
    blot = (blot - blot.min()) / max(float(np.ptp(blot)), 1e-6)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    weight = np.clip(1.2 - np.hypot(x, y), 0, 1) * (0.3 + 0.7 * blot)
    colour = frame.reshape(-1, 3)[random.integers(frame.size // 3)] * np.float32(random.uniform(0.2, 1.8))
    return _pasted(frame, np.broadcast_to(colour, (side, side, 3)), 0.6 * weight.astype(np.float32), random)


def missing_part(frame: Image, side: int, random: np.random.Generator) -> Image:
    """Cover a square with a smooth continuation of its surroundings."""
    hole = np.zeros(frame.shape[:2], np.uint8)
    hole[_random_square(frame, side, random)] = 255
    return cv2.inpaint(frame, hole, 3, cv2.INPAINT_TELEA).astype(np.uint8, copy=False)


KINDS: dict[str, Callable[[Image, int, np.random.Generator], Image]] = {
    "cut-paste": cut_paste,
    "scar": scar,
    "stain": stain,
    "missing part": missing_part,
}


def with_defect(frame: Image, number: int, random: np.random.Generator) -> Image:
    """A copy of the frame with one defect, whose kind and size alternate with ``number``."""
    kinds = tuple(KINDS.values())
    size = SIZES[number // len(kinds) % len(SIZES)]
    side = max(4, round(size * min(frame.shape[:2])))
    return kinds[number % len(kinds)](frame, side, random)


def _random_square(frame: Image, side: int, random: np.random.Generator) -> tuple[slice, slice]:
    rows, columns = frame.shape[:2]
    y, x = int(random.integers(0, rows - side + 1)), int(random.integers(0, columns - side + 1))
    return slice(y, y + side), slice(x, x + side)


def _pasted(frame: Image, piece: Float32, weight: Float32, random: np.random.Generator) -> Image:
    result = frame.astype(np.float32)
    target = result[_random_square(frame, len(piece), random)]
    target += weight[..., None] * (piece - target)
    return _to_image(result)


def _to_image(image: Float32) -> Image:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
