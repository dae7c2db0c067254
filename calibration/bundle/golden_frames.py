"""Golden frames: a few frames kept in the bundle, on which any engine can prove that it scores as calibration did."""

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
    """A uniform sample of the good frames (reservoir sampling, Vitter 1985), and a frame damaged on purpose.

    The damaged frame has a high score, and so reveals a head that saturates or overflows.

    Attributes:
        frames: Preprocessed frames.
        reduced: Their reduced features, (d, h, w) each.
    """

    def __init__(self) -> None:
        self.frames: list[Image] = []
        self.reduced: list[NDArray[np.float32]] = []
        self._slots = _slots()

    def offer(self, frame: Image, reduced: NDArray[np.float32]) -> None:
        """Take the next frame into the sample, or not."""
        slot = next(self._slots)
        if slot == len(self.frames):
            self.frames.append(frame)
            self.reduced.append(reduced)
        elif slot is not None:
            self.frames[slot], self.reduced[slot] = frame, reduced

    def add_damaged(self, features_of: Callable[[Image], NDArray[np.float32]]) -> None:
        """Append a copy of the first frame with a chequered patch; to be called last."""
        if not self.frames:
            return
        damaged = self.frames[0].copy()
        rows, columns = damaged.shape[0] // 4, damaged.shape[1] // 4
        patch = damaged[rows : 2 * rows, columns : 2 * columns]
        patch[(np.indices(patch.shape[:2]).sum(axis=0) // 4) % 2 == 0] ^= 0xFF
        self.frames.append(damaged)
        self.reduced.append(features_of(damaged))


def golden_indices(count: int) -> list[int]:
    """Indices of the frames that a sample keeps out of ``count`` frames, in the order of the sample."""
    kept = {slot: index for index, slot in zip(range(count), _slots(), strict=False) if slot is not None}
    return [kept[slot] for slot in sorted(kept)]


def _slots() -> Iterator[int | None]:
    """For each frame the slot in the sample that it takes, or None."""
    random = np.random.default_rng(0)
    yield from range(GOOD_FRAMES)
    for count in itertools.count(GOOD_FRAMES + 1):
        slot = int(random.integers(count))
        yield slot if slot < GOOD_FRAMES else None
