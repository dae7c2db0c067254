"""A sample of small images of bounded size, spread evenly over a stream of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibration.imaging.region import Image


class ThinnedSample:
    """Keeps every frame, then every second, fourth, ... one, so that the sample never exceeds its capacity.

    Args:
        capacity: Most images to keep; even.

    Attributes:
        images: The sample, in order of arrival.
    """

    def __init__(self, capacity: int) -> None:
        self.images: list[Image] = []
        self._capacity = capacity
        self._stride = 1
        self._offered = 0

    def offer(self, image: Image) -> None:
        """Add the next image to the sample, unless it is skipped."""
        if self._offered % self._stride == 0 and len(self.images) == self._capacity:
            self.images = self.images[::2]
            self._stride *= 2
        if self._offered % self._stride == 0:
            self.images.append(image)
        self._offered += 1
