"""Statistics of a frame that reveal a camera fault, computed in the same way by calibration and the agent.

Nearly all are computed on the network input (after ``Preprocess``), and so comparable between cameras.
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
_SAMPLED_ROWS = 64
_LEAST_NOISY = 0.01
_LIGHT_LEVELS = 16
_LARGEST_LIGHT_RATIO = 1.3
_DARKEST_LIT = 8
_LEAST_ENERGY = 1e-3
_LUMINANCE = np.array((0.114, 0.587, 0.299))  # as OpenCV, BGR


def brightness(grey: Image) -> float:
    """Log odds of the mean: 0 at half of white, unbounded toward black and white."""
    return _log_odds(cv2.mean(grey)[0])


def _log_odds(mean: float) -> float:
    share = (mean + 0.5) / 256
    return math.log(share / (1.0 - share))


def mean_grey_level(brightness_odds: float) -> float:
    """Mean grey level, 0 to 255, of a frame of this ``brightness``."""
    return 256 / (1.0 + math.exp(-brightness_odds)) - 0.5


def mean_colour(frame: Image) -> NDArray[np.float64]:
    """Mean over the whole image, BGR, (3,)."""
    return np.array(cv2.mean(frame)[:3])


def brightness_of_colour(colour: NDArray[np.float64]) -> float:
    """``brightness`` of an image of this mean colour, up to the rounding of its pixels."""
    return _log_odds(float(_LUMINANCE @ colour))


def warmth(colour: NDArray[np.float64]) -> float:
    """Log of red over blue: how yellow the light is, at any brightness."""
    return math.log((colour[2] + 1.0) / (colour[0] + 1.0))


def detail(grey: Image) -> float:
    """Log of the variance of the Laplacian (Pech-Pacheco et al. 2000): the amount of detail, and its sharpness."""
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    variance = cv2.norm(laplacian, cv2.NORM_L2SQR) / grey.size - cv2.mean(laplacian)[0] ** 2
    return math.log(max(variance, 0.0) + 1.0)


def edges(grey: Image) -> float:
    """Log of the gradient energy that a small blur removes over what it leaves: sharpness, at any amount of detail."""
    blurred = cv2.GaussianBlur(grey, (5, 5), 1.0).astype(np.uint8, copy=False)
    fine, coarse = _gradient_energy(grey), _gradient_energy(blurred)
    return math.log(max(fine / max(coarse, 1.0) - 1.0, _LEAST_ENERGY))


def _gradient_energy(grey: Image) -> float:
    """Sum of squared differences between the two neighbours of each pixel, without the border."""
    across = cv2.norm(grey[:, 2:], grey[:, :-2], cv2.NORM_L2SQR)
    return float(across + cv2.norm(grey[2:], grey[:-2], cv2.NORM_L2SQR))


def pixels_in_cell(height: int, width: int) -> int:
    """Side of a thumbnail cell, in pixels of the network input."""
    return max(1, round(min(height, width) / _THUMBNAIL_CELLS))


def thumbnail(image: Image) -> Image:
    """Mean of each cell; about 112 cells along the shorter side."""
    return _averaged(image, pixels_in_cell(*image.shape[:2]))


def blocks(frame: Image) -> Image:
    """Mean colour of each block of cells, (rows, columns, 3); about 28 blocks along the shorter side."""
    return _averaged(frame, _CELLS_IN_BLOCK * pixels_in_cell(*frame.shape[:2]))


def _averaged(image: Image, side: int) -> Image:
    rows, columns = image.shape[0] // side, image.shape[1] // side
    whole = image[: rows * side, : columns * side]  # OpenCV averages whole pixels several times as fast
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def block_colour_range(images: NDArray[np.uint8]) -> tuple[Image, Image]:
    """Darkest and brightest colour that each block may have: those of the good frames, widened by 16 levels.

    Args:
        images: ``blocks`` of the good frames, (n, rows, columns, 3).
    """
    darkest, brightest = images.min(axis=0).astype(np.int16), images.max(axis=0).astype(np.int16)
    least, most = darkest - _LIGHT_LEVELS, brightest + _LIGHT_LEVELS
    return np.maximum(least, 0).astype(np.uint8), np.minimum(most, 255).astype(np.uint8)


def unknown_colour_share(image: Image, least: Image, most: Image) -> float:
    """Share of the blocks whose colour is outside the known range, 0 to 1."""
    return 1.0 - cv2.countNonZero(cv2.inRange(image, least, most)) / (image.size // 3)


def match_light(image: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale an image to the light of another, by the median of their ratios, within 30 %.

    So an object that covers half of the image is not taken for a change of light, nor a failed lamp for a flicker.

    Args:
        image: Grey levels, of any shape.
        other: The same shape.
    """
    lit = image > _DARKEST_LIT  # ratios of darker pixels are mostly rounding
    ratio = float(np.median(other[lit] / image[lit])) if lit.any() else 1.0
    scaled: NDArray[np.float32] = image * np.float32(min(max(ratio, 1 / _LARGEST_LIGHT_RATIO), _LARGEST_LIGHT_RATIO))
    return scaled


def sample_rows(image: Image) -> Image:
    """A copy of about 64 rows: enough to see the noise, and quick to compare.

    Args:
        image: The region of interest in camera pixels; resizing would average the noise away.
    """
    return np.ascontiguousarray(image[:: max(1, image.shape[0] // _SAMPLED_ROWS)])


def mean_difference(before: Image, now: Image) -> float:
    """Mean absolute difference in grey levels; infinite between images of different sizes."""
    if before.shape != now.shape:
        return math.inf
    return float(cv2.norm(before, now, cv2.NORM_L1)) / before.size


def is_frozen(before: Image, now: Image, limit: float) -> bool:
    """Whether two consecutive images are too similar for a working camera.

    Black and white have no noise: an image of nothing else, such as a silhouette against a lamp, is never frozen.
    """
    if mean_difference(before, now) > limit:
        return False
    noisy = cv2.countNonZero(cv2.inRange(now.reshape(1, -1), 1, 254))
    return noisy > _LEAST_NOISY * now.size
