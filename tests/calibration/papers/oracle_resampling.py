"""Bilinear enlargement and Gaussian blur: written from their definitions, without reading the code under test.

PatchCore and PaDiM enlarge a coarse map to the size of the image and blur it with a Gaussian of sigma 4. What the
published code calls settles the rest: centres of cells lie at
half cells (``align_corners=False``), positions outside of the outermost centres take the value at the border, the blur
is ``scipy.ndimage.gaussian_filter`` with its defaults: radius int(4 sigma + 0.5), and a border that mirrors with the
outermost value repeated (d c b a | a b c d | d c b a).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def bilinear(maps: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Maps (..., h, w) at another size (H, W): (..., H, W)."""
    rows = interpolation(maps.shape[-2], size[0])
    columns = interpolation(maps.shape[-1], size[1])
    return np.asarray(np.einsum("Hh,...hw,Ww->...HW", rows, maps, columns))


def interpolation(source: int, target: int) -> NDArray[np.float64]:
    """Weights (target, source) of linear interpolation along one axis; each row sums to 1."""
    weights = np.zeros((target, source))
    for index in range(target):
        position = min(max((index + 0.5) * source / target - 0.5, 0.0), source - 1.0)
        lower = int(position)
        upper = min(lower + 1, source - 1)
        weights[index, lower] += 1 - (position - lower)
        weights[index, upper] += position - lower
    return weights


def gaussian_blur(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """One map (h, w), blurred along rows and columns; sigma in cells of the map."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    blurred = image
    for axis in (0, 1):
        moved = np.moveaxis(blurred, axis, 0)
        length = len(moved)
        padded = np.pad(moved, ((radius, radius), (0, 0)), mode="symmetric")
        summed = np.zeros_like(moved)
        for offset, weight in enumerate(kernel):
            summed += weight * padded[offset : offset + length]
        blurred = np.moveaxis(summed, 0, axis)
    return blurred
