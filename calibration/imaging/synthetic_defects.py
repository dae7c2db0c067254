"""Draws synthetic defects into images of good parts, so that detection can be measured without a defective part.

They do not imitate real defects, but like these they are local, of several kinds and sizes, and of a contrast that has
to do with the part: each differs from what it covers by one to four times as much as one in ten neighbouring places
differ, and by a few grey levels at least. So a defect on a surface that varies little is faint.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibration.imaging.region import Image

Float32: TypeAlias = NDArray[np.float32]
Drawing: TypeAlias = "Callable[[Float32, Float32, float, np.random.Generator], Float32]"

SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
"""Sides of defects, as shares of the shorter side of the image."""
_LEAST_SIDE = 3
_LEAST_CONTRAST = 6.0  # grey levels, about what a person just sees
_MOST_CONTRAST = 4.0
_NOTICED = 0.9  # quantile of the differences between neighbours, and of the change within a defect
_MOST_GAIN = 8.0
_MOST_STEPS = 20_000
_ATTEMPTS = 8
_PICTURE_PX, _LEAST_SHOWN_PX = 96, 48
_LEAST_BLENDED = 4  # pixels; cv2.seamlessClone fails below
_TURN_RAD = 0.35  # standard deviation from step to step of a crack
_WEAK_AREA = 0.35  # share of a shape's square that is left out


def crack(target: Float32, other: Float32, contrast: float, random: np.random.Generator) -> Float32:
    """A line that turns at random, darker or lighter than what it crosses; a random walk."""
    del other
    side = len(target)
    angles = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0.0, _TURN_RAD, max(4, side // 4)))
    path = np.cumsum(np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0)
    path -= path.min(axis=0)
    path *= (side - 1) / path.max()
    path += (side - 1 - path.max(axis=0)) / 2
    line = np.zeros((side, side), np.uint8)
    points = np.rint(16 * path).astype(np.int32)  # in sixteenths of a pixel
    cv2.polylines(line, [points], isClosed=False, color=255, thickness=_width(side), lineType=cv2.LINE_AA, shift=4)
    weight = line.astype(np.float32)[..., None] / 255
    return np.asarray(target + weight * (_direction(target, contrast, random) * contrast), np.float32)


def texture(target: Float32, other: Float32, contrast: float, random: np.random.Generator) -> Float32:
    """A piece of another image, turned and recoloured, in a shape of smooth noise (DRAEM, Zavrtanik et al. 2021)."""
    turned = np.rot90(other, int(random.integers(1, 4)))[..., random.permutation(3)]
    shift = _direction(target, contrast, random) * contrast
    recoloured = turned - turned.mean(axis=(0, 1)) + target.mean(axis=(0, 1)) + np.float32(shift)
    return np.asarray(target + _shape(len(target), random)[..., None] * (recoloured - target), np.float32)


def moved_piece(target: Float32, other: Float32, contrast: float, random: np.random.Generator) -> Float32:
    """A piece of another image that takes on the colours around it (NSA, Schlueter et al. 2022; Perez et al. 2003)."""
    weight = _shape(len(target), random)
    x, y, width, height = cv2.boundingRect((weight > 0).astype(np.uint8))
    if min(width, height) < _LEAST_BLENDED:
        return _amplified(target, target + weight[..., None] * (other - target), contrast)
    area, middle = (weight > 0).astype(np.uint8) * 255, (x + width // 2, y + height // 2)
    blended = cv2.seamlessClone(_to_image(other), _to_image(target), area, middle, cv2.NORMAL_CLONE)
    return _amplified(target, blended.astype(np.float32), contrast)


def missing_part(target: Float32, other: Float32, contrast: float, random: np.random.Generator) -> Float32:
    """A smooth continuation of the surroundings, as where something is not there or was scraped off (Telea 2004)."""
    del other
    hole = (_shape(len(target), random) > 0).astype(np.uint8)
    filled = cv2.inpaint(_to_image(target), hole, 3, cv2.INPAINT_TELEA)
    return _amplified(target, filled.astype(np.float32), contrast)


KINDS: dict[str, Drawing] = {
    "crack": crack,
    "texture": texture,
    "moved piece": moved_piece,
    "missing part": missing_part,
}
"""What is at a place instead, from what is there and from a piece of another image, both (side, side, 3).

The border of the place stays as it is.
"""


DIFFERENT = len(KINDS) * len(SHARES)
MOST_DRAWN = 6 * DIFFERENT
_IMAGES = 24


def affordable_defects(good_images: int) -> int:
    """How many to draw: 40, or more for 300 images, up to 120 for 600.

    Drawing and scoring them then takes at most a third of the time that the images themselves take.
    """
    return max(2 * DIFFERENT, min(MOST_DRAWN, DIFFERENT * (good_images // 100)))


def planned_defects(good_images: int, defects: int) -> list[list[int]]:
    """The numbers of the defects for each of a sample of good images."""
    images = min(good_images, _IMAGES, defects // 2)
    order = np.random.default_rng(0).permutation(defects)
    return [order[position::images].tolist() for position in range(images)]


def kind_and_share(number: int) -> tuple[str, float]:
    """Kind and size of a defect, which alternate with its number, so that each comes up as often."""
    kinds = tuple(KINDS)
    return kinds[number % len(kinds)], SHARES[number // len(kinds) % len(SHARES)]


def with_defect(
    image: Image,
    number: int,
    random: np.random.Generator,
    *,
    other: Image | None = None,
    inspected: NDArray[np.bool_] | None = None,
) -> Image:
    """A copy of an image with one defect.

    Where a piece looks like what it covers, another place is tried; where all do, a texture is drawn.

    Args:
        image: A good part, (rows, columns, 3), at least 3 pixels wide and high.
        number: Of the defect; see `kind_and_share`.
        random: Draws place, shape and contrast.
        other: Another good part, for foreign pieces; None takes the image itself.
        inspected: Pixels in which a defect may lie, (rows, columns), one at least; None: all.
    """
    kind, share = kind_and_share(number)
    side = side_of(min(image.shape[:2]), share)
    source = image if other is None or min(other.shape[:2]) < side else other
    contrast = _contrast(image, _width(side) if kind == "crack" else max(1, side // 4), random)
    result: Image = image.copy()
    for draw in (*[KINDS[kind]] * _ATTEMPTS, texture):
        place = _place(image, side, random, inspected)
        target = image[place].astype(np.float32)
        piece = source[_place(source, side, random)].astype(np.float32)
        result[place] = _to_image(draw(target, piece, contrast, random))
        if _change(target, result[place]) >= _LEAST_CONTRAST / 2:
            break
        result[place] = image[place]
    return result


def side_of(shorter_px: float, share: float) -> int:
    """Side of a defect in an image of this shorter side."""
    return max(_LEAST_SIDE, round(share * shorter_px))


def picture_of(before: Image, after: Image) -> Image:
    """A small square picture of a defect and its surroundings, from the image without and with it."""
    x, y, width, height = cv2.boundingRect((before != after).any(axis=2).astype(np.uint8))
    rows, columns = before.shape[:2]
    shorter = min(rows, columns)
    side = min(shorter, max(_LEAST_SHOWN_PX, 3 * max(width, height)))
    left = min(max(0, x + (width - side) // 2), columns - side)
    top = min(max(0, y + (height - side) // 2), rows - side)
    shown = cv2.resize(after[top : top + side, left : left + side], (_PICTURE_PX,) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(shown, np.uint8)


def _width(side: int) -> int:
    """Width of a crack, which grows slowly with its length."""
    return max(1, round(sqrt(side) / 3))


def _contrast(image: Image, cell: int, random: np.random.Generator) -> float:
    """Grey levels by which a defect of this scale differs from what it covers."""
    rows, columns = image.shape[:2]
    size = (max(2, columns // cell), max(2, rows // cell))
    means = cv2.resize(to_grey(image), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    steps = np.abs(np.concatenate([np.diff(means, axis=0).ravel(), np.diff(means, axis=1).ravel()]))
    steps = steps[:: -(-len(steps) // _MOST_STEPS)]
    return random.uniform(1.0, _MOST_CONTRAST) * max(_LEAST_CONTRAST, float(np.quantile(steps, _NOTICED)))


def _direction(target: Float32, contrast: float, random: np.random.Generator) -> int:
    """1 for lighter, -1 for darker; what white or black leaves room for."""
    grey = float(target.mean())
    possible = [sign for sign in (-1, 1) if 0 <= grey + sign * contrast <= 255]  # noqa: PLR2004
    return int(random.choice(possible or [-1, 1]))


def _shape(side: int, random: np.random.Generator) -> Float32:
    """Weights, (side, side), of an irregular shape: smooth noise over a threshold, with soft edges; 0 at the border."""
    noise = cv2.resize(random.normal(size=(4, 4)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    noise = noise / max(float(noise.std()), 1e-6) - 3 * np.hypot(x, y) ** 2
    inner = noise[1:-1, 1:-1]
    low, high = np.quantile(inner, [_WEAK_AREA, (1 + _WEAK_AREA) / 2])
    weight = np.zeros((side, side), np.float32)
    weight[1:-1, 1:-1] = np.clip((inner - low) / max(high - low, 1e-6), 0, 1) if high > low else 1.0
    return weight


def _amplified(target: Float32, replaced: Float32, contrast: float) -> Float32:
    """The replacement, with its difference from the target raised to the contrast, if it is not that different."""
    gain = np.clip(contrast / max(_change(target, replaced), 1e-6), 1.0, _MOST_GAIN)
    return np.asarray(target + gain * (replaced - target), np.float32)


def _change(before: Float32, after: NDArray[np.floating] | Image) -> float:
    """Grey levels by which what has changed differs, but for its faintest nine tenths."""
    grey = np.abs(after - before).mean(axis=2)
    changed = grey[grey > 0]
    return float(np.quantile(changed, _NOTICED)) if len(changed) else 0.0


def _place(
    image: Image, side: int, random: np.random.Generator, inspected: NDArray[np.bool_] | None = None
) -> tuple[slice, slice]:
    """A square inside the image whose middle is inspected, or as near as the border lets it."""
    rows, columns = image.shape[:2]
    if inspected is None or inspected.all():
        y, x = int(random.integers(rows - side + 1)), int(random.integers(columns - side + 1))
    else:
        middle = int(random.choice(np.flatnonzero(inspected)))
        y = int(np.clip(middle // columns - side // 2, 0, rows - side))
        x = int(np.clip(middle % columns - side // 2, 0, columns - side))
    return slice(y, y + side), slice(x, x + side)


def _to_image(pixels: Float32) -> Image:
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)
