"""Small pictures of many frames, in memory that does not grow with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibration.imaging.region import Image


class ThinnedSample:
    """At most so many pictures: of more, every second, fourth, ... frame.

    Args:
        most: Pictures kept; even.

    Attributes:
        pictures: In their order.
    """

    def __init__(self, most: int) -> None:
        self.pictures: list[Image] = []
        self._most = most
        self._every = 1
        self._seen = 0

    def offer(self, picture: Image) -> None:
        """Keep it, or do not."""
        if self._seen % self._every == 0:
            if len(self.pictures) == self._most:
                self.pictures = self.pictures[::2]
                self._every *= 2
            if self._seen % self._every == 0:
                self.pictures.append(picture)
        self._seen += 1
