"""Orientation correlation (Fitch et al. 2002): find the static structure of the good frames in another frame.

Each pixel of a thumbnail becomes the direction of its edge, a vector of length 0 (no edge) to 1, so that light and
contrast hardly matter. The mean over good frames is long only where an edge never moves; parts that come and go leave
little. Its correlation with a frame peaks at the displacement of the camera; a missing part lowers it everywhere alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.region import Image

    Directions = NDArray[np.float32]

_NOISE_LEVELS = 3.0
_NEAREST = 0.03
_FARTHEST = 0.25
_LEAST_STRUCTURE = 1e-3


def edge_directions(thumbnail: Image) -> Directions:
    """Direction of the edge at each pixel of a grey thumbnail, (rows, columns, 2); shorter where it is weak."""
    across, down = (
        cv2.Sobel(thumbnail, cv2.CV_32F, one, 1 - one, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE)
        for one in (1, 0)
    )
    # Not cv2.magnitude, whose last digit depends on the memory alignment of the image.
    length = np.sqrt(across * across + down * down) + np.float32(_NOISE_LEVELS)
    return np.stack((across / length, down / length), axis=2)


@dataclass(frozen=True, slots=True)
class Displacement:
    """Displacement of one frame against the good ones.

    Attributes:
        at_zero: Correlation without displacement; 1 if the whole structure is visible.
        elsewhere: Highest correlation at a displacement of more than 3 % of the longer side.
        cells: That displacement, (right, down), in cells of the thumbnail.
    """

    at_zero: float
    elsewhere: float
    cells: tuple[int, int]


class Structure:
    """The static structure of the good frames.

    Attributes:
        mean: Mean edge directions of the good frames, (rows, columns, 2).
        is_recognisable: Whether there is enough structure to recognise.
    """

    def __init__(self, mean: Directions) -> None:
        rows, columns = mean.shape[:2]
        self._reach = int(_FARTHEST * max(rows, columns))
        # All displacements fit even into a side that is shorter than the farthest of them.
        self._size = tuple(
            cv2.getOptimalDFTSize(max(side + self._reach, 2 * self._reach + 1)) for side in (rows, columns)
        )
        self.mean = mean
        self._transform = cv2.dft(self._padded(mean))
        energy = float((mean.astype(np.float64) ** 2).sum())
        self.is_recognisable = energy > _LEAST_STRUCTURE * rows * columns
        self._scale = 1.0 / max(energy, 1e-9)
        steps = np.arange(-self._reach, self._reach + 1)
        self._nearest = _NEAREST * max(rows, columns) - 0.5  # distances are whole cells
        self._near = np.hypot(steps[:, None], steps[None, :]) < self._nearest

    def displacement(self, frame: Directions) -> Displacement:
        """Locate the structure in another frame."""
        correlation = self._correlation(frame)
        here = float(correlation[self._reach, self._reach])
        correlation[self._near] = -np.inf
        down, right = divmod(int(correlation.argmax()), correlation.shape[1])
        return Displacement(here, float(correlation[down, right]), (right - self._reach, down - self._reach))

    def smallest_visible_shift(self, visible: float, limit: float) -> tuple[int | None, int | None]:
        """Smallest displacement, to the side and up or down, in cells, that takes ``elsewhere - at_zero`` over a limit.

        None for a direction along which the structure does not change, such as that of a straight edge.

        Args:
            visible: ``at_zero`` of a frame that shows little of the structure.
            limit: Of ``elsewhere - at_zero``.
        """
        correlation, energy = self._correlation(self.mean), (self.mean**2).sum(axis=2) * self._scale
        centre = self._reach
        found = []
        for axis, profile in ((0, correlation[centre]), (1, correlation[:, centre])):
            left_of = np.cumsum(energy.sum(axis=axis))
            # What leaves the frame on one side counts neither in ``elsewhere`` nor in ``at_zero``.
            gains = (
                visible
                * min(left_of[-1 - cells] - profile[centre - cells], 1.0 - left_of[cells - 1] - profile[centre + cells])
                for cells in range(1, min(self._reach + 1, len(left_of)))
            )
            noticed = (cells for cells, gain in enumerate(gains, 1) if cells >= self._nearest and gain > limit)
            found.append(next(noticed, None))
        return found[0], found[1]

    def _correlation(self, frame: Directions) -> NDArray[Any]:
        """Correlation by displacement, (down, right), each from -reach to reach."""
        product = cv2.mulSpectrums(cv2.dft(self._padded(frame)), self._transform, 0, conjB=True)
        correlation = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[..., 0]
        window = 2 * self._reach + 1
        return np.roll(correlation, (self._reach, self._reach), (0, 1))[:window, :window] * self._scale

    def _padded(self, vectors: Directions) -> Directions:
        """Padded against wrap-around; OpenCV reads the pairs as complex numbers."""
        padded = np.zeros((*self._size, 2), np.float32)
        padded[: vectors.shape[0], : vectors.shape[1]] = vectors
        return padded
