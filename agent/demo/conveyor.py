"""Renders parts on a conveyor, seen by a camera from above, one frame for each part.

Position, rotation, tool marks, steel tone, lamp, belt and sensor noise vary as on a real line, with the same
distribution from the first frame to the last. Textures are made once; each frame combines random pieces of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.demo.defects import dent, scratch, stain
from agent.demo.flange import BOLT_HOLES, SIZE_PX, Field, Flange, belt_shadow, draw_flange
from calibration.errors import StorageError
from calibration.imaging.preprocess import Image, Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

WIDTH_PX, HEIGHT_PX = 640, 480
REGION = Region(x=128, y=48, width=384, height=384)
"""Recommended region of interest: the part in all its positions, and a little belt."""

DEFECTS = ("scratch", "dent", "missing hole", "stain")
CLOSEST_DEFECTS = 5
"""Least distance between two defective parts."""

_PAINT = {"scratch": scratch, "dent": dent, "stain": stain}
_LEFT, _TOP = (WIDTH_PX - SIZE_PX) // 2, (HEIGHT_PX - SIZE_PX) // 2
_WINDOW = np.s_[_TOP : _TOP + SIZE_PX, _LEFT : _LEFT + SIZE_PX]
_RAIL_PX = 26
_LAMP_MEMORY = 0.85
_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Part:
    """One frame and the truth about its part.

    Attributes:
        image: (480, 640, 3), uint8, BGR.
        defect: One of DEFECTS; None for a good part.
    """

    image: Image
    defect: str | None


def parts(count: int, *, seed: int, defect_every: int | None = None) -> Iterator[Part]:
    """Render parts one after the other, always the same ones for the same seed.

    A defective part equals the good part of the same seed except where the defect is.

    Args:
        count: Number of parts.
        seed: Not negative. Belt and lamp are the same for every seed.
        defect_every: Mean distance between defective parts, at least CLOSEST_DEFECTS; the kinds take turns. None: all
            parts are good.
    """
    # Defects have their own random generator, so that a stream with defects differs in nothing else from a good one.
    good, bad, when = (np.random.default_rng(source) for source in np.random.SeedSequence(seed).spawn(3))
    defects = _defects(count, when, defect_every)
    lamp = good.standard_normal()
    for index in range(count):
        lamp = _LAMP_MEMORY * lamp + np.sqrt(1 - _LAMP_MEMORY**2) * good.standard_normal()
        defect = defects.get(index)
        flange = _flange(good, bad, defect)
        yield Part(image=_photograph(flange, 1 + 0.08 * np.tanh(0.7 * lamp), good), defect=defect)


def write_video(path: Path, parts: Iterable[Part], frames_per_s: float) -> list[str | None]:
    """Write the parts as a high-quality Motion-JPEG AVI, one frame for each part.

    Returns:
        The defect in each frame, None for a good part.

    Raises:
        StorageError: The file cannot be created, or lacks frames afterwards.
    """
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, fourcc, frames_per_s, (WIDTH_PX, HEIGHT_PX))
    if not writer.isOpened():
        raise StorageError(
            what=f"cannot create the video {path}",
            remedy="give a path in a folder that exists and is writable",
        )
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _JPEG_QUALITY)
    truth: list[str | None] = []
    try:
        for part in parts:
            writer.write(part.image)
            truth.append(part.defect)
    finally:
        writer.release()
    _check_frame_count(path, len(truth))
    return truth


def _check_frame_count(path: Path, expected: int) -> None:
    """Compare with the index at the end of the file, because the writer does not report a full disk."""
    video = cv2.VideoCapture(str(path))
    written = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    if written != expected:
        raise StorageError(
            what=f"the video {path} holds {written} of {expected} frames",
            remedy="free space on the disk and try again",
        )


def _defects(count: int, when: np.random.Generator, defect_every: int | None) -> dict[int, str]:
    """Index of a defective part -> kind of its defect."""
    if defect_every is None:
        return {}
    spread = min(defect_every - CLOSEST_DEFECTS, defect_every // 2)
    gaps = when.integers(defect_every - spread, defect_every + spread, count // CLOSEST_DEFECTS + 1, endpoint=True)
    indices = np.cumsum(gaps) - 1
    return {int(index): DEFECTS[turn % len(DEFECTS)] for turn, index in enumerate(indices) if index < count}


def _flange(good: np.random.Generator, bad: np.random.Generator, defect: str | None) -> Flange:
    missing_hole = int(bad.integers(BOLT_HOLES)) if defect == "missing hole" else None
    flange = draw_flange(good, missing_hole=missing_hole)
    return _PAINT[defect](flange, bad) if defect in _PAINT else flange


def _photograph(flange: Flange, lamp: float, good: np.random.Generator) -> Image:
    """Put the part on the belt, light the scene and expose the sensor."""
    middle = (SIZE_PX - 1) / 2
    pose = np.array(cv2.getRotationMatrix2D((middle, middle), good.uniform(-3, 3), 1), np.float32)
    pose[:, 2] += good.uniform(-4, 4, 2).astype(np.float32)
    scene = _belt_piece(good)
    window = scene[_WINDOW]
    belt = window * _on_colours(_posed(belt_shadow(), pose, outside=1))
    window[...] = belt + _on_colours(_posed(flange.cover, pose, outside=0)) * (_posed(flange.colour, pose, 0) - belt)
    warmth = good.normal(0, 0.004)
    gain = lamp * np.array([1 - warmth, 1, 1 + warmth, 1])  # OpenCV takes four numbers for a colour, but not three
    cv2.multiply(scene, _light(), dst=scene)
    cv2.multiply(scene, gain, dst=scene)
    return _sensor(scene, good)


def _posed(field: Field, pose: Field, outside: float) -> Field:
    size = (SIZE_PX, SIZE_PX)
    return np.asarray(cv2.warpAffine(field, pose, size, flags=cv2.INTER_LINEAR, borderValue=(outside,) * 3), np.float32)


def _on_colours(plane: Field) -> Field:
    return np.asarray(cv2.merge([plane] * 3), np.float32)


def _belt_piece(good: np.random.Generator) -> Field:
    belt = _belt()
    x = good.integers(belt.shape[1] - WIDTH_PX)
    y = good.integers(belt.shape[0] - HEIGHT_PX)
    scene: Field = belt[y : y + HEIGHT_PX, x : x + WIDTH_PX].copy()
    scene[:_RAIL_PX], scene[-_RAIL_PX:] = _rails()
    return scene


def _sensor(scene: Field, good: np.random.Generator) -> Image:
    noise = _noise()
    x, y = good.integers(noise.shape[1] - WIDTH_PX), good.integers(noise.shape[0] - HEIGHT_PX)
    grains = noise[y : y + HEIGHT_PX, x : x + WIDTH_PX]
    return np.asarray(cv2.add(scene, grains, dtype=cv2.CV_8U), np.uint8)


@functools.cache
def _belt() -> Field:
    """Dark green rubber with a woven texture, signs of wear and specks, (rows, columns, 3)."""
    rng = np.random.default_rng(7)
    rows, columns = HEIGHT_PX + 12, 2400
    weave_y, weave_x = np.mgrid[:rows, :columns].astype(np.float32)
    weave = np.sin(2 * np.pi * (weave_x + weave_y) / 5.0) * np.sin(2 * np.pi * (weave_x - weave_y) / 5.0)
    grey = 62 + 2.2 * weave
    for strength, along_px, across_px in [(2.0, 0.7, 0.7), (1.6, 9, 9), (1.4, 60, 0.9), (2.0, 160, 7)]:
        layer = cv2.GaussianBlur(rng.standard_normal((rows, columns), np.float32), (0, 0), along_px, sigmaY=across_px)
        grey += strength * layer / layer.std()
    return np.asarray(grey[..., np.newaxis] * np.array([0.93, 1.0, 0.88]), np.float32)


@functools.cache
def _rails() -> tuple[Field, Field]:
    """Aluminium rails above and below the belt, (rows, WIDTH_PX, 3) each."""
    rng = np.random.default_rng(8)
    profile = np.interp(
        np.arange(_RAIL_PX), [0, 5, 6, 8, 17, 19, 21, 23, 25], [128, 132, 90, 136, 142, 176, 120, 50, 34]
    )
    brushed = cv2.GaussianBlur(rng.standard_normal((_RAIL_PX, WIDTH_PX), np.float32), (0, 0), 40, sigmaY=0.5)
    rail = (profile[:, np.newaxis] + 3 * brushed / brushed.std())[..., np.newaxis] * np.array([1.0, 0.99, 0.97])
    rail = rail.astype(np.float32)
    return rail, rail[::-1] * 0.9


@functools.cache
def _light() -> Field:
    """Gain of lamp and lens at each pixel, (HEIGHT_PX, WIDTH_PX, 3)."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    x, y = x / WIDTH_PX - 0.5, y / WIDTH_PX - 0.375
    gain = (1.17 - 0.12 * x - 0.14 * y) * (1 - 0.38 * (x**2 + y**2))
    return np.asarray(gain[..., np.newaxis] * np.array([1.01, 1.0, 1.0]), np.float32)


@functools.cache
def _noise() -> Field:
    """A sheet of sensor noise in grey levels to cut frames from; partly shared by the colours, as after demosaicing."""
    rng = np.random.default_rng(9)
    sheet = (HEIGHT_PX + 256, WIDTH_PX + 256, 3)
    colour = cv2.GaussianBlur(rng.standard_normal(sheet, np.float32), (0, 0), 0.7)
    return np.asarray(1.3 * colour / colour.std() + 1.3 * rng.standard_normal((*sheet[:2], 1), np.float32), np.float32)
