"""Paints over areas of the network input that are not inspected: a label, a date code, a clamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.region import Image

_RING_PX = 4


class IgnoreMask:
    """Paints each connected area in the mean colour around it on good parts, so that it has hardly an edge.

    Args:
        labels: Number of the area at each pixel of the network input, 0 if inspected, (height, width), uint8.
        colours: Colour of each area, (areas, 3), uint8, BGR.
    """

    def __init__(self, labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> None:
        self.labels = labels
        self.colours = colours
        self._paint = np.concatenate([np.zeros((1, 3), np.uint8), colours])[labels]

    @property
    def area(self) -> NDArray[np.bool_]:
        """The ignored pixels, (height, width)."""
        area: NDArray[np.bool_] = self.labels > 0
        return area

    def resized(self, height: int, width: int) -> IgnoreMask:
        """The same areas in a network input of another size."""
        labels = cv2.resize(self.labels, (width, height), interpolation=cv2.INTER_NEAREST)
        return IgnoreMask(labels.astype(np.uint8, copy=False), self.colours)

    def __call__(self, image: Image) -> Image:
        """A copy of the network input with the areas painted."""
        return np.asarray(cv2.copyTo(self._paint, self.labels, image.copy()), np.uint8)


def label_areas(area: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Number the connected areas from 1; from the 255th on they share the number 255."""
    _, labels = cv2.connectedComponents(area.astype(np.uint8), connectivity=8)
    return np.minimum(labels, 255).astype(np.uint8)


def surrounding_rings(labels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """A mask of the inspected pixels within 4 pixels of each area, or of all inspected pixels if there are none."""
    inspected = labels == 0
    kernel = np.ones((2 * _RING_PX + 1,) * 2, np.uint8)
    rings = []
    for label in range(1, int(labels.max()) + 1):
        ring = (cv2.dilate((labels == label).astype(np.uint8), kernel) > 0) & inspected
        rings.append((ring if ring.any() else inspected).astype(np.uint8))
    return rings
