"""Pairs of patches to train on: neighbours in one of eight directions, and two at almost the same location."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

    Float32 = NDArray[np.float32]
    Integers = NDArray[np.int64]

# From the first patch to the second: (rows, columns); the classes of the classifier.
_DIRECTIONS = np.array([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column])
_JITTER = 32  # two patches at almost the same location are at most this part of a side apart
_NOISE = 0.02  # share of white, in each colour of a patch and in each of its pixels


class Frames(NamedTuple):
    """Good frames to cut patches from.

    Attributes:
        frames: (height, width, 3), uint8, RGB.
        units: Factor of each frame, which makes white 1.
        mean: Subtracted after that: RGB, (3,), or the mean image, (height, width, 3).
        spread: Standard deviation of all channels together, by which the result is divided.
    """

    frames: Sequence[Image]
    units: Sequence[float]
    mean: Float32
    spread: float

    def cut(self, numbers: Integers, corners: Integers, side: int) -> Float32:
        """Patches of some frames at (row, column) of their upper left corner: (n, 3, side, side)."""
        mean = np.broadcast_to(self.mean, self.frames[0].shape)
        cut = []
        for number, (row, column) in zip(numbers, corners, strict=True):
            here = np.s_[row : row + side, column : column + side]
            cut.append(self.frames[number][here] * np.float32(self.units[number]) - mean[here])
        patches: Float32 = (np.stack(cut) / np.float32(self.spread)).transpose(0, 3, 1, 2)
        return patches

    def _random_patches(
        self, count: int, side: int, random: np.random.Generator
    ) -> tuple[Integers, Integers, Integers]:
        """Frames, corners of patches in them, and the corner farthest down and right."""
        height, width = self.frames[0].shape[:2]
        last = np.array((height - side, width - side))
        return random.integers(len(self.frames), size=count), random.integers(last + 1, size=(count, 2)), last

    def neighbours(self, count: int, side: int, random: np.random.Generator) -> tuple[Float32, Float32, Integers]:
        """Pairs between three quarters of a side and a side apart, with noise, and their directions (n,).

        The noise keeps the encoders from using chromatic aberration and the like (section 3.2). At the border of the
        frame the second patch is moved inside.
        """
        numbers, corners, last = self._random_patches(count, side, random)
        directions = random.integers(len(_DIRECTIONS), size=count)
        distances = random.integers(3 * side // 4, side, size=(count, 2))
        others: Integers = np.clip(corners + _DIRECTIONS[directions] * distances, 0, last)
        first, second = self.cut(numbers, corners, side), self.cut(numbers, others, side)
        return self._with_noise(first, random), self._with_noise(second, random), directions

    def jittered(self, count: int, side: int, random: np.random.Generator) -> tuple[Float32, Float32]:
        """Pairs of a location and one right next to it."""
        numbers, corners, last = self._random_patches(count, side, random)
        reach = range(-(side // _JITTER), side // _JITTER + 1)
        steps = np.array([(row, column) for row in reach for column in reach if row or column])
        others = corners + steps[random.integers(len(steps), size=count)]
        return self.cut(numbers, corners, side), self.cut(numbers, np.clip(others, 0, last), side)

    def _with_noise(self, patches: Float32, random: np.random.Generator) -> Float32:
        colours = random.standard_normal((len(patches), 3, 1, 1), np.float32)
        patches += np.float32(_NOISE / self.spread) * (colours + random.standard_normal(patches.shape, np.float32))
        return patches
