"""Paints a scratch, dent or stain onto a flange. Each changes only the metal around it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agent.demo.flange import SIZE_PX, TO_LIGHT, Field, Flange, metal_depth

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OVERSAMPLING = 4
_NO_FILM = 0.06
"""A thinner film of oil counts as dry, so that a stain does not spread over the whole part."""


def scratch(flange: Flange, rng: np.random.Generator) -> Flange:
    """A thin curved groove with a bright burr on the side away from the lamp, 60 to 130 px long."""
    path = _scratch_path(rng)
    steps = len(path) - 1
    load = np.sin(np.pi * (np.arange(steps) + 0.7) / (steps + 0.4)) ** 0.5 * _wavering(rng, steps)
    groove = _stroke(path, load, rng.uniform(1.3, 1.9))
    aside = np.gradient(path, axis=0)[:, ::-1] * (1, -1)
    aside *= -np.sign(aside @ TO_LIGHT[:2])[:, np.newaxis] / np.linalg.norm(aside, axis=1, keepdims=True)
    burr = _stroke((path + 1.7 * aside).astype(np.float32), load, 1.2)
    change = rng.uniform(85, 110) * burr - rng.uniform(70, 95) * groove
    return _with_change(flange, change)


def dent(flange: Flange, rng: np.random.Generator) -> Flange:
    """A shallow knock, 14 to 26 px across: dark towards the lamp, bright on the opposite side, with a raised rim."""
    diameter_px = rng.uniform(14, 26)
    along, across = _offsets(_spot_on_metal(rng, diameter_px / 2 + 4), rng.uniform(0, np.pi))
    distance = np.hypot(along / 1.12, across * 1.12) / (diameter_px / 2)
    depth_px = diameter_px * rng.uniform(0.11, 0.15)
    height = -depth_px * np.exp(-2.2 * distance**2.6) + 0.14 * depth_px * np.exp(-((distance - 1.1) ** 2) / 0.06)
    slope_y, slope_x = np.gradient(height)
    facing = -slope_x * TO_LIGHT[0] - slope_y * TO_LIGHT[1]
    steepness = np.hypot(slope_x, slope_y)
    change = 140 * facing - 45 * steepness + 45 * np.clip(facing, 0, 1) ** 2
    return _with_change(flange, change)


def stain(flange: Flange, rng: np.random.Generator) -> Flange:
    """A brownish film of oil, 24 to 50 px across, with soft, ragged edges and a darker tide line."""
    size_px = rng.uniform(24, 50)
    spot = _spot_on_metal(rng, 12)
    blob = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    for _ in range(7):
        along, across = _offsets(spot + rng.normal(0, size_px / 6, 2), rng.uniform(0, np.pi))
        radius_px = size_px * rng.uniform(0.2, 0.4)
        blob += np.exp(-((along / radius_px) ** 2) - (across / (0.7 * radius_px)) ** 2).astype(np.float32)
    ragged = blob * (1 + 1.4 * cv2.GaussianBlur(rng.standard_normal(blob.shape, np.float32), (0, 0), 2.5))
    film = np.clip(1 / (1 + np.exp(-6 * (ragged - 0.5))) - _NO_FILM, 0, 1)
    thickness = film * (0.7 + 0.3 * np.clip(blob / 2, 0, 1)) + 0.8 * film * (1 - film)
    absorbed = rng.uniform(0.34, 0.5) * thickness * flange.cover
    lost = cv2.merge([absorbed.astype(np.float32) * share for share in (1.0, 0.8, 0.66)])
    return replace(flange, colour=flange.colour * (1 - lost))


def _with_change(flange: Flange, change: NDArray[np.floating[Any]]) -> Flange:
    """The flange with the grey levels of its metal changed."""
    return replace(flange, colour=flange.colour + (change * flange.cover).astype(np.float32)[..., np.newaxis])


def _spot_on_metal(rng: np.random.Generator, clearance_px: float) -> Field:
    """A random pixel (x, y) with this clearance from every edge of the metal."""
    rows, columns = np.nonzero(metal_depth() > clearance_px)
    choice = rng.integers(len(rows))
    return np.array([columns[choice], rows[choice]], np.float32)


def _offsets(middle: NDArray[np.floating[Any]], angle_rad: float) -> tuple[Field, Field]:
    """Offsets of every pixel from a point, along and across a direction, in pixels."""
    pixels = np.arange(SIZE_PX, dtype=np.float32)
    x, y = np.meshgrid(pixels - middle[0], pixels - middle[1])
    cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
    return x * cos + y * sin, y * cos - x * sin


def _scratch_path(rng: np.random.Generator) -> Field:
    """Points (x, y) of a slightly curved line through a spot on the metal, (33, 2)."""
    half_length_px = rng.uniform(32, 65)
    spot = _spot_on_metal(rng, 14)
    # Along the turning marks it would be invisible.
    radial_rad = np.arctan2(spot[1] - SIZE_PX / 2, spot[0] - SIZE_PX / 2)
    angle_rad, bend = radial_rad + rng.uniform(-1.1, 1.1), rng.uniform(-0.25, 0.25)
    along = np.linspace(-1, 1, 33)
    across = bend * (along**2 - 0.5)
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    line = np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)
    return (spot + half_length_px * line).astype(np.float32)


def _wavering(rng: np.random.Generator, steps: int) -> Field:
    """Pressure of the tip along the scratch, 0.45 to 1."""
    raw = np.convolve(rng.uniform(0, 1, steps + 4), np.ones(5) / 5, "valid")
    return np.asarray(np.clip(0.45 + 1.1 * (raw - 0.25), 0.45, 1), np.float32)


def _stroke(path: Field, load: Field, width_px: float) -> Field:
    """Share of each pixel covered by the line, times the load on its segment."""
    canvas = np.zeros((SIZE_PX * _OVERSAMPLING,) * 2, np.uint8)
    points = np.rint((path + 0.5) * _OVERSAMPLING).astype(int)
    for start, end, pressure in zip(points[:-1], points[1:], load, strict=True):
        thickness = max(1, round(width_px * _OVERSAMPLING * pressure))
        cv2.line(canvas, start.tolist(), end.tolist(), int(255 * pressure), thickness, cv2.LINE_AA)
    small = cv2.resize(canvas, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255, np.float32)
