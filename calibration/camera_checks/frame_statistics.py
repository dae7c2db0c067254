"""What a camera that lies changes in its frames, as numbers that calibration and the agent take alike.

Nearly all are taken of the network input (after ``Preprocess``), and so mean the same on every camera.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.region import Image

_THUMBNAIL_CELLS = 112
_CELLS_IN_BLOCK = 4
_STILL_ROWS = 64
_LEAST_NOISY = 0.01
_LIGHT_LEVELS = 16
_LIGHT_TIMES = 1.3
_SAYS_LIGHT = 8
_LEAST_ENERGY = 1e-3
_LUMINANCE = np.array((0.114, 0.587, 0.299))  # of OpenCV, BGR


def brightness(grey: Image) -> float:
    """Log odds of the mean: 0 at half of white, falls toward black and rises toward white without an end."""
    return log_odds(cv2.mean(grey)[0])


def log_odds(mean: float) -> float:
    """Of a mean grey level, 0 to 255."""
    share = (mean + 0.5) / 256
    return math.log(share / (1.0 - share))


def mean_colour(frame: Image) -> NDArray[np.float64]:
    """Of the whole picture, BGR, (3,)."""
    return np.array(cv2.mean(frame)[:3])


def brightness_of_colour(colour: NDArray[np.float64]) -> float:
    """``brightness`` of a picture with this mean colour, up to the rounding of its pixels."""
    return log_odds(float(_LUMINANCE @ colour))


def warmth(colour: NDArray[np.float64]) -> float:
    """Log of red over blue: how yellow the light is, however bright."""
    return math.log((colour[2] + 1.0) / (colour[0] + 1.0))


def mean_grey_level(brightness_odds: float) -> float:
    """Mean grey level, 0 to 255, of a frame of this ``brightness``."""
    return 256 / (1.0 + math.exp(-brightness_odds)) - 0.5


def detail(grey: Image) -> float:
    """Log of the variance of the Laplacian (Pech-Pacheco et al. 2000): how much there is to see, and how sharp."""
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    variance = cv2.norm(laplacian, cv2.NORM_L2SQR) / grey.size - cv2.mean(laplacian)[0] ** 2
    return math.log(max(variance, 0.0) + 1.0)


def edges(grey: Image) -> float:
    """Log of what a small blur takes from the energy of gradients, over what it leaves: how sharp what there is, is."""
    fine, coarse = _gradient_energy(grey), _gradient_energy(_softened(grey))
    return math.log(max(fine / max(coarse, 1.0) - 1.0, _LEAST_ENERGY))


def _softened(grey: Image) -> Image:
    return cv2.GaussianBlur(grey, (5, 5), 1.0).astype(np.uint8, copy=False)


def _gradient_energy(grey: Image) -> float:
    """Of differences between the next pixels on both sides; a border has none."""
    across = cv2.norm(grey[:, 2:], grey[:, :-2], cv2.NORM_L2SQR)
    return float(across + cv2.norm(grey[2:], grey[:-2], cv2.NORM_L2SQR))


def pixels_in_cell(height: int, width: int) -> int:
    """Side of a thumbnail's cell, in pixels of the network input."""
    return max(1, round(min(height, width) / _THUMBNAIL_CELLS))


def thumbnail(picture: Image) -> Image:
    """Mean of each cell; about 112 cells along the shorter side."""
    return _averaged(picture, pixels_in_cell(*picture.shape[:2]))


def blocks(frame: Image) -> Image:
    """Mean colour of each block of cells, (rows, columns, 3); about 28 blocks along the shorter side."""
    return _averaged(frame, _CELLS_IN_BLOCK * pixels_in_cell(*frame.shape[:2]))


def _averaged(picture: Image, side: int) -> Image:
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    whole = picture[: rows * side, : columns * side]  # over whole pixels OpenCV does it several times as fast
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def block_colour_range(pictures: NDArray[np.uint8]) -> tuple[Image, Image]:
    """What each block may look like: the darkest and the brightest seen there, and 16 levels more for changes of light.

    Args:
        pictures: Blocks of the good frames, (n, rows, columns, 3).
    """
    darkest, brightest = pictures.min(axis=0).astype(np.int16), pictures.max(axis=0).astype(np.int16)
    least, most = darkest - _LIGHT_LEVELS, brightest + _LIGHT_LEVELS
    return np.maximum(least, 0).astype(np.uint8), np.minimum(most, 255).astype(np.uint8)


def unknown_colour_share(seen: Image, least: Image, most: Image) -> float:
    """Share of the blocks whose colour is none of those known there, 0 to 1."""
    return 1.0 - cv2.countNonZero(cv2.inRange(seen, least, most)) / (seen.size // 3)


def match_light(picture: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """A picture in the light of another: by the median ratio of both, at most 30 % more or less.

    What hides half of the picture does not look like light, and a lamp that fails not like one that flickers.

    Args:
        picture: Grey levels, of any shape.
        other: The same shape.
    """
    lit = picture > _SAYS_LIGHT  # below it rounding says more
    ratio = float(np.median(other[lit] / picture[lit])) if lit.any() else 1.0
    brought: NDArray[np.float32] = picture * np.float32(min(max(ratio, 1 / _LIGHT_TIMES), _LIGHT_TIMES))
    return brought


def sample_rows(picture: Image) -> Image:
    """A copy of some rows of a frame: noise is in all of them, and to compare all would take long.

    Args:
        picture: What is inspected of the frame as the camera gave it; resizing would average noise away.
    """
    return np.ascontiguousarray(picture[:: max(1, picture.shape[0] // _STILL_ROWS)])


def mean_difference(before: Image, now: Image) -> float:
    """Mean absolute difference in grey levels; infinite between pictures of different sizes."""
    if before.shape != now.shape:
        return math.inf
    return float(cv2.norm(before, now, cv2.NORM_L1)) / before.size


def is_frozen(before: Image, now: Image, limit: float) -> bool:
    """Whether a camera that lives would not have given both, one after the other.

    Black and white have no noise: where there is nothing else, as in a silhouette before a lamp, nothing can be told.
    """
    if mean_difference(before, now) > limit:
        return False
    noisy = cv2.countNonZero(cv2.inRange(now.reshape(1, -1), 1, 254))
    return noisy > _LEAST_NOISY * now.size
