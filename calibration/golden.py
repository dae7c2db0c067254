"""Golden frames: a few frames kept in the bundle so that any engine can prove that it scores as calibration did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.preprocess import Image

GOOD_FRAMES = 3


class GoldenSample:
    """A uniform sample of the good frames (reservoir sampling, Vitter 1985), and one damaged on purpose.

    The damaged one has a high score, so that a head which saturates or overflows is found out too.

    Attributes:
        frames: Preprocessed frames.
        reduced: Their reduced features, (d, h, w) each.
    """

    def __init__(self) -> None:
        self.frames: list[Image] = []
        self.reduced: list[NDArray[np.float32]] = []
        self._seen = 0
        self._random = np.random.default_rng(0)

    def offer(self, frame: Image, reduced: NDArray[np.float32]) -> None:
        """Maybe keep this frame."""
        self._seen += 1
        if len(self.frames) < GOOD_FRAMES:
            self.frames.append(frame)
            self.reduced.append(reduced)
            return
        place = int(self._random.integers(self._seen))
        if place < GOOD_FRAMES:
            self.frames[place], self.reduced[place] = frame, reduced

    def add_damaged(self, features_of: Callable[[Image], NDArray[np.float32]]) -> None:
        """Add a copy of the first frame with a chequered patch, as the last golden frame."""
        if not self.frames:
            return
        damaged = self.frames[0].copy()
        rows, columns = damaged.shape[0] // 4, damaged.shape[1] // 4
        patch = damaged[rows : 2 * rows, columns : 2 * columns]
        patch[(np.indices(patch.shape[:2]).sum(axis=0) // 4) % 2 == 0] ^= 0xFF
        self.frames.append(damaged)
        self.reduced.append(features_of(damaged))
