"""Golden frames: a few frames kept in the bundle, on which any engine can prove that it scores as calibration did."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

GOOD_FRAMES = 3


@dataclass(frozen=True)
class GoldenFrames:
    """Frames with known scores, which every engine must reproduce.

    Attributes:
        frames: (n, height, width, 3), uint8, preprocessed.
        scores: (n,), computed in NumPy from the backbone's features.
    """

    frames: NDArray[np.uint8]
    scores: NDArray[np.float64]

    def why_unproving(self, size: tuple[int, int]) -> str | None:
        """Why reproducing these scores would prove nothing about a network; None if it would.

        Args:
            size: (height, width) of the network input.
        """
        frames, scores = self.frames, self.scores
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*size, 3):  # noqa: PLR2004
            return f"its golden frames are {frames.dtype} of shape {frames.shape}, not of {size[0]}x{size[1]} pixels"
        if len(frames) < 2 or scores.shape != frames.shape[:1] or scores.dtype.kind != "f":  # noqa: PLR2004
            return f"it has {len(frames)} golden frames and {scores.size} scores of them; two of each are the least"
        varies = frames.max(axis=(1, 2)) > frames.min(axis=(1, 2))
        if not varies[:-1].any() or not varies[-1].any() or len(np.unique(scores)) == 1:
            return "its golden frames have one colour, or one score: they prove nothing about a network"
        return None


def highest_finite(*scores: NDArray[Any]) -> float:
    """The highest of all finite scores, or 0."""
    return max((float(each[np.isfinite(each)].max(initial=0.0)) for each in scores), default=0.0)


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
