"""Areas that are never judged, painted over in the network input: a label, a date code, a clamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.region import Image

RING_PX = 4
"""How far around an area its colour is taken from, in pixels of the network input."""


class IgnoreMask:
    """Paints each connected area with one colour: that around it on good parts, so that it has hardly an edge.

    Args:
        labels: 0 where the network input is judged, else the number of the area, (height, width), uint8.
        colours: Of each area, (areas, 3), uint8, BGR.
    """

    def __init__(self, labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> None:
        self.labels = labels
        self.colours = colours
        self._paint = np.concatenate([np.zeros((1, 3), np.uint8), colours])[labels]

    @property
    def area(self) -> NDArray[np.bool_]:
        """Where nothing is judged, (height, width)."""
        area: NDArray[np.bool_] = self.labels > 0
        return area

    def __call__(self, picture: Image) -> Image:
        """The network input with the areas painted, as a new picture."""
        return np.asarray(cv2.copyTo(self._paint, self.labels, picture.copy()), np.uint8)


def label_areas(area: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Labels of connected areas; of more than 255 the others are one with the last."""
    _, labels = cv2.connectedComponents(area.astype(np.uint8), connectivity=8)
    return np.minimum(labels, 255).astype(np.uint8)


def surrounding_rings(labels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """What surrounds each area, as masks; what is far from it where that is nothing."""
    judged = labels == 0
    kernel = np.ones((2 * RING_PX + 1,) * 2, np.uint8)
    rings = []
    for label in range(1, int(labels.max()) + 1):
        ring = (cv2.dilate((labels == label).astype(np.uint8), kernel) > 0) & judged
        rings.append((ring if ring.any() else judged).astype(np.uint8))
    return rings
