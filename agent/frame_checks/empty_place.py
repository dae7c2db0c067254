"""Whether the place before the camera is empty, compared with an image of the empty place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.camera_checks.frame_statistics import match_light
from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image, Preprocess

_HALF_WAY = 0.5


class EmptyPlace:
    """Recognises the empty place.

    The place is empty if it is less than half as far from the image of the empty place as good parts are; brightness
    may differ by 30 %. Everything else is a part, however little it resembles a good one: none may pass uninspected.

    Args:
        empty: Image of the empty place, as the camera gives it.
        preprocess: The preprocessing of the bundle.
        reference: Arrays of ``reference.npz``.

    Raises:
        DatasetError: The region of interest does not fit into the image.
    """

    def __init__(self, empty: Image, preprocess: Preprocess, reference: Mapping[str, NDArray[Any]]) -> None:
        self._preprocess = preprocess
        self._mean, deviation = (reference[name].astype(np.float32) for name in ("thumbnail_mean", "thumbnail_std"))
        self._empty = self._thumbnail(empty)
        difference = self._mean - match_light(self._empty, self._mean)
        # The mean square distance of single good parts, whose positions vary, not that of their mean.
        self._good = float(np.sqrt(np.mean(difference**2 + deviation**2)))

    def __call__(self, image: Image) -> bool:
        """Whether a frame, into which the region of interest must fit, shows the empty place."""
        return self.distance(image) < _HALF_WAY

    def distance(self, image: Image) -> float:
        """Distance from the empty place (0); good parts are at about 1."""
        seen = self._thumbnail(image)
        return float(np.sqrt(np.mean((seen - match_light(self._empty, seen)) ** 2))) / max(self._good, 1.0)

    def _thumbnail(self, image: Image) -> NDArray[np.float32]:
        rows, columns = self._mean.shape
        grey = to_grey(self._preprocess(image))
        return cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
