"""Draws a machined steel flange: turned face, boss, bore, bolt holes, chamfers, engraving.

The shape is a height map whose slopes are lit, with different tool marks on each part. What all parts share is computed
once, at three times the resolution.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float32]

SIZE_PX = 400
"""Side of the square image of a flange; its axis is in the middle."""

OUTER_RADIUS_PX = 170.0
HALF_WIDTH_OVER_FLATS_PX = 150.0
BORE_RADIUS_PX = 44.0
BOSS_RADIUS_PX = 80.0
GROOVE_RADIUS_PX = 90.0
BOLT_CIRCLE_RADIUS_PX = 118.0
BOLT_HOLE_RADIUS_PX = 13.0
BOLT_HOLES = 6
TO_LIGHT = (-0.48, -0.60, 0.64)
"""Unit vector towards the lamp; x right, y down, z up."""

_OVERSAMPLING = 3
_MIDDLE_PX = (SIZE_PX - 1) / 2
_TURN_STEPS = 1440
_POOL_RADII = 1400
_FACE_RADII = 180


@dataclass(frozen=True, slots=True)
class Flange:
    """One part, upright and centred, before it is put on the belt.

    Attributes:
        colour: (SIZE_PX, SIZE_PX, 3), BGR, grey levels 0 to 255.
        cover: (SIZE_PX, SIZE_PX), 1 where there is metal, 0 where the belt shows.
    """

    colour: Field
    cover: Field


@dataclass(frozen=True, slots=True)
class _Blank:
    """What all parts share, (SIZE_PX, SIZE_PX) each: grey levels, weight of the tool marks, metal or not."""

    shade: Field
    grain: Field
    cover: Field


def draw_flange(surface: np.random.Generator, *, missing_hole: int | None = None) -> Flange:
    """A flange with its own tool marks and steel tone.

    Args:
        surface: Generator of everything that differs between good parts.
        missing_hole: Index of the bolt hole that was not drilled, below BOLT_HOLES.
    """
    blank = _blank(missing_hole)
    marks = _tool_marks(surface)
    grey = blank.shade + blank.grain * marks * np.float32(surface.uniform(0.85, 1.15))
    blue = surface.normal(0, 0.004)
    tone = np.array([0.99 + blue, 0.985, 0.975 - blue], np.float32)
    # Merging planes is three times as fast as broadcasting over the colours.
    return Flange(colour=np.asarray(cv2.merge([grey * gain for gain in tone]), np.float32), cover=blank.cover)


@functools.cache
def metal_depth() -> Field:
    """Distance from each pixel to the nearest edge of the metal in pixels, negative outside the metal."""
    x, y = _coordinates(1)
    return -functools.reduce(np.maximum, _edges(x, y, None))


@functools.cache
def belt_shadow() -> Field:
    """Share of light that reaches the belt around a part, (SIZE_PX, SIZE_PX)."""
    cover = _blank(None).cover
    cast = cv2.warpAffine(cover, np.array([[1, 0, 8], [0, 1, 10]], np.float32), (SIZE_PX, SIZE_PX))
    cast = cv2.GaussianBlur(cast, (0, 0), 6)
    contact = cv2.GaussianBlur(cover, (0, 0), 13)
    return np.asarray((1 - 0.55 * cast) * (1 - 0.45 * contact), np.float32)


def _coordinates(oversampling: int) -> tuple[Field, Field]:
    """Pixel centres relative to the axis: x to the right and y down, in pixels of the frame."""
    samples = (np.arange(SIZE_PX * oversampling, dtype=np.float32) + 0.5) / oversampling - 0.5 - _MIDDLE_PX
    x, y = np.meshgrid(samples, samples)
    return x.astype(np.float32), y.astype(np.float32)


def _edges(x: Field, y: Field, missing_hole: int | None) -> list[Field]:
    """Signed distance to each edge, negative inside the metal: outline, bore, then the bolt holes."""
    radius = np.hypot(x, y)
    outline = np.maximum(radius - OUTER_RADIUS_PX, np.abs(y) - HALF_WIDTH_OVER_FLATS_PX)
    holes = [
        BOLT_HOLE_RADIUS_PX - np.hypot(x - hole_x, y - hole_y)
        for index, (hole_x, hole_y) in enumerate(_bolt_holes())
        if index != missing_hole
    ]
    return [outline, BORE_RADIUS_PX - radius, *holes]


def _bolt_holes() -> list[tuple[float, float]]:
    """Middle of each bolt hole relative to the axis: x to the right and y down, in pixels."""
    angles = np.arange(BOLT_HOLES) * 2 * np.pi / BOLT_HOLES
    return [(BOLT_CIRCLE_RADIUS_PX * float(np.cos(a)), BOLT_CIRCLE_RADIUS_PX * float(np.sin(a))) for a in angles]


@functools.cache
def _blank(missing_hole: int | None) -> _Blank:
    x, y = _coordinates(_OVERSAMPLING)
    edges = _edges(x, y, missing_hole)
    cover = np.clip(0.5 - _OVERSAMPLING * functools.reduce(np.maximum, edges), 0, 1)
    height = _height(x, y, edges)
    shade, grain = _shading(x, y, height)
    return _Blank(shade=_downsampled(shade), grain=_downsampled(grain), cover=_downsampled(cover))


def _height(x: Field, y: Field, edges: list[Field]) -> Field:
    """Height of the surface above the face, in pixels."""
    radius = np.hypot(x, y)
    height = 5 * np.clip((BOSS_RADIUS_PX - radius) / 4, 0, 1)
    height -= 3 * np.clip(1.5 - np.abs(radius - GROOVE_RADIUS_PX) / 2, 0, 1)
    outline, bore, *holes = edges
    for edge, chamfer_px in [(outline, 6.0), (bore, 5.0), *((hole, 3.0) for hole in holes)]:
        height -= np.clip(edge + chamfer_px, 0, chamfer_px + 2)
    for hole in holes:
        height -= 0.9 * np.clip((hole + 9) / 1.2, 0, 1)
    height -= 0.8 * _engraving()
    return np.asarray(cv2.GaussianBlur(height.astype(np.float32), (0, 0), 0.5 * _OVERSAMPLING), np.float32)


def _engraving() -> Field:
    """1 where nominal size and pressure are engraved between the bolt holes."""
    canvas = np.zeros((SIZE_PX * _OVERSAMPLING,) * 2, np.uint8)
    font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, 0.52 * _OVERSAMPLING, round(1.5 * _OVERSAMPLING)
    for text, base_line_px in [("DN40", 124), ("PN16", -110)]:
        (width, _), _ = cv2.getTextSize(text, font, scale, thickness)
        corner = (int(_MIDDLE_PX * _OVERSAMPLING) - width // 2, int((_MIDDLE_PX + base_line_px) * _OVERSAMPLING))
        cv2.putText(canvas, text, corner, font, scale, 255, thickness, cv2.LINE_AA)
    return np.asarray(canvas / 255, np.float32)


def _shading(x: Field, y: Field, height: Field) -> tuple[Field, Field]:
    """Grey levels of the smooth surface, and grey levels by which a tool mark of unit depth changes them."""
    slope_y, slope_x = np.gradient(height * _OVERSAMPLING)
    steepness = np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (-slope_x * TO_LIGHT[0] - slope_y * TO_LIGHT[1] + TO_LIGHT[2]) / steepness
    half_way = np.add(TO_LIGHT, (0, 0, 1))
    half_way /= np.linalg.norm(half_way)
    mirrored = (-slope_x * half_way[0] - slope_y * half_way[1] + half_way[2]) / steepness
    glint = np.clip(mirrored, 0, 1) ** 24
    # Turned grooves reflect the lamp in two opposite fans, and a distant lamp in weaker ones.
    angle = np.arctan2(y, x)
    lamp = np.arctan2(TO_LIGHT[1], TO_LIGHT[0])
    fan = np.abs(np.cos(angle - lamp)) ** 10 + 0.4 * np.abs(np.cos(angle - lamp - 1.3)) ** 22
    flat = np.clip(1 - 2.5 * (steepness - 1), 0, 1)
    shade = 24 + 112 * np.clip(facing, 0, 1) / steepness**0.25 + 95 * glint + 68 * fan * flat
    grain = (5 + 12 * fan) * flat + 2
    return shade.astype(np.float32), grain.astype(np.float32)


def _downsampled(field: Field) -> Field:
    return np.asarray(cv2.resize(field, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA), np.float32)


def _tool_marks(surface: np.random.Generator) -> Field:
    """Concentric turning marks of one part: unit variance, (SIZE_PX, SIZE_PX)."""
    pool = _marks_pool()
    blend = surface.uniform(0, np.pi / 2)
    turned = np.zeros((_TURN_STEPS + 1, _FACE_RADII), np.float32)
    for weight in (np.cos(blend), np.sin(blend)):
        turn = surface.integers(_TURN_STEPS)
        start = surface.integers(_POOL_RADII - _FACE_RADII)
        turned += np.float32(weight) * pool[turn : turn + _TURN_STEPS + 1, start : start + _FACE_RADII]
    return np.asarray(cv2.remap(turned, *_polar_maps(), cv2.INTER_LINEAR), np.float32)


@functools.cache
def _polar_maps() -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    x, y = _coordinates(1)
    radius = np.minimum(np.hypot(x, y), _FACE_RADII - 2)
    turn = (np.arctan2(y, x) / (2 * np.pi) + 0.5) * _TURN_STEPS
    whole, fraction = cv2.convertMaps(radius.astype(np.float32), turn.astype(np.float32), cv2.CV_16SC2)
    return np.asarray(whole, np.int16), np.asarray(fraction, np.uint16)


@functools.cache
def _marks_pool() -> Field:
    """Marks by turn and radius, two full turns, unit variance: fine scratches on broader bands of the feed."""
    noise = np.random.default_rng(20220211)
    pool = np.zeros((_TURN_STEPS, _POOL_RADII), np.float32)
    for weight, along_steps, across_px in [(0.75, 90, 0.45), (0.5, 24, 0.35), (0.55, 400, 2.5)]:
        layer = noise.standard_normal(pool.shape, np.float32)
        layer = np.concatenate([layer, layer, layer])
        streaks = cv2.GaussianBlur(layer, (0, 0), across_px, sigmaY=along_steps)[_TURN_STEPS:-_TURN_STEPS]
        pool += weight * streaks / streaks.std()
    pool /= pool.std()
    return np.concatenate([pool, pool])
