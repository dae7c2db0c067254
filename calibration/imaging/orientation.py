"""Where the camera looks: the place of what stands still, found again in another frame.

Orientation correlation (Fitch et al. 2002): each place of the thumbnail is the direction of its edge, a vector of
length 0 (no edge) to 1, so that light and contrast hardly count. The mean over good frames is long only where an edge
stays where it is; parts that come and go leave little of it. Its correlation with the directions of a frame is highest
at the displacement of the camera; an absent part lowers it everywhere alike.
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
    """Direction of the edge at each place of a grey thumbnail, (rows, columns, 2); shorter where it is weak."""
    across, down = (
        cv2.Sobel(thumbnail, cv2.CV_32F, one, 1 - one, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE)
        for one in (1, 0)
    )
    # Not cv2.magnitude, whose last digit depends on where in memory a picture lies.
    length = np.sqrt(across * across + down * down) + np.float32(_NOISE_LEVELS)
    return np.stack((across / length, down / length), axis=2)


@dataclass(frozen=True, slots=True)
class Displacement:
    """Of one frame against the good ones.

    Attributes:
        at_zero: Correlation where the camera should look, 1 where all that stands still is seen.
        elsewhere: The highest one farther away than three hundredths of the picture.
        cells: Where that is: (to the right, down), in cells of the thumbnail.
    """

    at_zero: float
    elsewhere: float
    cells: tuple[int, int]


class Structure:
    """What stands still.

    Args:
        mean: Of the directions of good frames, (rows, columns, 2).

    Attributes:
        is_recognisable: Whether there is anything to recognise.
    """

    def __init__(self, mean: Directions) -> None:
        rows, columns = mean.shape[:2]
        self._reach = int(_FARTHEST * max(rows, columns))
        self._size = tuple(cv2.getOptimalDFTSize(side + self._reach) for side in (rows, columns))
        self._mean = mean
        self._transform = cv2.dft(self._padded(mean))
        energy = float((mean.astype(np.float64) ** 2).sum())
        self.is_recognisable = energy > _LEAST_STRUCTURE * rows * columns
        self._scale = 1.0 / max(energy, 1e-9)
        steps = np.arange(-self._reach, self._reach + 1)
        self._nearest = _NEAREST * max(rows, columns) - 0.5  # of whole cells the nearest counts
        self._near = np.hypot(steps[:, None], steps[None, :]) < self._nearest

    def displacement(self, seen: Directions) -> Displacement:
        """Where the structure is in another frame."""
        correlation = self._correlation(seen)
        here = float(correlation[self._reach, self._reach])
        correlation[self._near] = -np.inf
        down, right = divmod(int(correlation.argmax()), correlation.shape[1])
        return Displacement(here, float(correlation[down, right]), (right - self._reach, down - self._reach))

    def smallest_visible_shift(self, visible: float, limit: float) -> tuple[int | None, int | None]:
        """Smallest displacement to the side, and up or down, that brings ``there - here`` above a limit, in cells.

        Args:
            visible: ``here`` of a frame in which little of the structure is seen.
            limit: Of ``there - here``.

        Returns:
            None in a direction along which the structure does not change, as on an edge that runs that way.
        """
        correlation, energy = self._correlation(self._mean), (self._mean**2).sum(axis=2) * self._scale
        centre = self._reach
        found = []
        for along, line in ((0, correlation[centre]), (1, correlation[:, centre])):
            lines = np.cumsum(energy.sum(axis=along))
            # What leaves the picture on one side is seen neither here nor there.
            gains = (
                visible * min(lines[-1 - cells] - line[centre - cells], 1.0 - lines[cells - 1] - line[centre + cells])
                for cells in range(1, self._reach + 1)
            )
            enough = (cells for cells, gain in enumerate(gains, 1) if cells >= self._nearest and gain > limit)
            found.append(next(enough, None))
        return found[0], found[1]

    def _correlation(self, seen: Directions) -> NDArray[Any]:
        """By displacement, (down, right), each from -reach to reach."""
        product = cv2.mulSpectrums(cv2.dft(self._padded(seen)), self._transform, 0, conjB=True)
        correlation = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[..., 0]
        window = 2 * self._reach + 1
        return np.roll(correlation, (self._reach, self._reach), (0, 1))[:window, :window] * self._scale

    def _padded(self, vectors: Directions) -> Directions:
        """As complex numbers, with room so that what leaves on one side does not come back on the other."""
        padded = np.zeros((*self._size, 2), np.float32)
        padded[: vectors.shape[0], : vectors.shape[1]] = vectors
        return padded
