"""Golden frames: a few frames kept in the bundle so that any engine can prove that it scores as calibration did."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

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
        self._places = _slots()

    def offer(self, frame: Image, reduced: NDArray[np.float32]) -> None:
        """Maybe keep this frame."""
        place = next(self._places)
        if place == len(self.frames):
            self.frames.append(frame)
            self.reduced.append(reduced)
        elif place is not None:
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


def golden_indices(count: int) -> list[int]:
    """Which of so many frames, offered in their order, a sample keeps, in its order."""
    kept = {place: index for index, place in zip(range(count), _slots(), strict=False) if place is not None}
    return [kept[place] for place in sorted(kept)]


def _slots() -> Iterator[int | None]:
    """For each frame the place in the sample that it takes, or None."""
    random = np.random.default_rng(0)
    yield from range(GOOD_FRAMES)
    for seen in itertools.count(GOOD_FRAMES + 1):
        place = int(random.integers(seen))
        yield place if place < GOOD_FRAMES else None
