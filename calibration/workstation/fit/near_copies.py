"""Near copies among good images: the same part photographed, saved or filmed again.

What an image has of its own is what is left when the mean of all images is taken away. Two images of different parts
have nothing of it in common; near copies fail this test of independence, as two images of one iris do (Daugman 2004).
It is made in small blocks, so that no bright edge and no outline that moved decides alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

    Float32 = NDArray[np.float32]
    Labels = NDArray[np.int64]

_BLOCKS, _BLOCK, _KEPT = 7, 8, 4
_NO_DETAIL = 0.5  # grey levels: less is rounding
_CLIPPED = 3.0
_LEAST_BLOCKS = 4
# Of independent blocks, correlations of 15 figures, 17 % exceed the first of these and 5 % the last.
_LIMITS = (0.25, 0.3, 0.36, 0.425)
_GAP, _AT_MOST_BETWEEN, _BY_CHANCE = 0.7, 0.2, 3
_LEAST_DENSITY = 0.75
_LEAST_COPIES, _LEAST_GROUPS, _LEAST_SHARE = 5, 5, 0.1
_LEAST_NEIGHBOURS, _NEIGHBOURS_SHARE, _MORE_THAN_ANY = 3, 0.1, 5.0
_COMPARED = 2000

# Orthonormal DCT of a block, its lowest frequencies.
_FREQUENCY, _CELL = np.arange(_KEPT)[:, None], np.arange(_BLOCK)[None]
_DCT = (np.cos(pi * _FREQUENCY * (2 * _CELL + 1) / (2 * _BLOCK)) / 2 * np.where(_FREQUENCY, 1, sqrt(0.5))).astype("f4")


@dataclass(frozen=True)
class Alike:
    """Which images show the same part again.

    Attributes:
        parts: The part that each image shows, (n,), counted from 0; None if there are no near copies that matter.
        in_sequence: Images resemble the next one, like frames of a video.
    """

    parts: Labels | None = None
    in_sequence: bool = False

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Each image of a part that was seen before, and the first image of that part."""
        first: dict[int, int] = {}
        pairs = [
            (index, first.setdefault(part, index))
            for index, part in enumerate([] if self.parts is None else self.parts.tolist())
        ]
        return [(index, before) for index, before in pairs if index != before]


def fingerprint(frame: Image) -> Float32:
    """What is compared of an image: low frequencies of 7 x 7 blocks, whatever their light and contrast, (49, 15).

    Args:
        frame: Network input, (height, width, 3), uint8 BGR.
    """
    side = _BLOCKS * _BLOCK
    cells = cv2.resize(to_grey(frame).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    blocks = cells.reshape(_BLOCKS, _BLOCK, _BLOCKS, _BLOCK).swapaxes(1, 2)
    figures = (_DCT @ blocks @ _DCT.T).reshape(_BLOCKS**2, _KEPT**2)[:, 1:]
    even: Float32 = figures / (np.sqrt((figures**2).mean(axis=1, keepdims=True)) + np.float32(_NO_DETAIL))
    return even


def near_copies(fingerprints: Sequence[Float32]) -> Alike:
    """Find images of the same part.

    Two images are near copies if three quarters of their blocks correlate above a limit, the lowest at which the pairs
    of images fall into two populations: few pairs just below it, and most images of a group near copies of each other.
    Where good parts merely vary (in place, turn or light) there are ever more pairs the less alike they are, and chains
    of them. Fewer than five groups are rather kinds of good parts, and few copies change nothing.

    Of more than 2,000 images, those of the same 2,000 in order are compared, so that time and memory grow linearly.

    Args:
        fingerprints: Of each image, in order.
    """
    figures = np.stack(fingerprints)
    own = _own(figures)
    if own.shape[1] >= _LEAST_BLOCKS:
        compared = [_alike(own[start : start + _COMPARED]) for start in range(0, len(own), _COMPARED)]
        for limit in _LIMITS:
            found = [_Groups.of(each, limit) for each in compared]
            labels = _numbered(found)
            if _matter(labels) and _two_populations(found):
                return Alike(labels)
        if _neighbours_alike(found):
            return Alike(in_sequence=True)
    identical = np.unique(figures.reshape(len(figures), -1), axis=0, return_inverse=True)[1].ravel()
    return Alike(identical if _matter(identical) else None)


def _own(figures: Float32) -> Float32:
    """What each image has of its own in each block that varies, as unit vectors, (n, blocks, 15)."""
    figures = figures - figures.mean(axis=0)
    spread = figures.std(axis=0)
    varies = spread.max(axis=1) > np.finfo(np.float32).eps
    own = np.clip(figures[:, varies] / np.maximum(spread[varies], 1e-6), -_CLIPPED, _CLIPPED)
    unit: Float32 = own / np.maximum(np.linalg.norm(own, axis=2, keepdims=True), 1e-6)
    return unit


def _alike(own: Float32) -> Float32:
    """Correlation that three quarters of the blocks of each pair exceed, (n, n)."""
    count, blocks = own.shape[:2]
    by_block = np.ascontiguousarray(own.swapaxes(0, 1))
    alike, lower, rows = np.empty((count, count), np.float32), (blocks - 1) // 4, max(1, 2**16 // count)
    for start in range(0, count, rows):
        correlations = by_block[:, start : start + rows] @ by_block.swapaxes(1, 2)
        correlations.partition(lower, axis=0)
        alike[start : start + rows] = correlations[lower]
    np.fill_diagonal(alike, -1.0)
    return alike


@dataclass(frozen=True)
class _Groups:
    """Groups at a limit, and numbers of pairs: all, near copies, those just below, those within the groups."""

    labels: Labels
    all: int
    near: int
    below: int
    within: int
    near_neighbours: int

    @classmethod
    def of(cls, alike: Float32, limit: float) -> _Groups:
        near = alike > limit
        labels, count, number = _components(near), len(near), int(near.sum()) // 2
        sizes = np.bincount(labels)
        return cls(
            labels,
            all=count * (count - 1) // 2,
            near=number,
            below=int((alike > _GAP * limit).sum()) // 2 - number,
            within=int((sizes * (sizes - 1) // 2).sum()),
            near_neighbours=int(np.diagonal(near, 1).sum()),
        )


def _numbered(found: Sequence[_Groups]) -> Labels:
    """Labels of all images, from those of each stretch."""
    starts = np.cumsum([0, *(each.labels.max() + 1 for each in found)])
    return np.concatenate([each.labels + start for each, start in zip(found, starts, strict=False)])


def _matter(labels: Labels) -> bool:
    sizes = np.bincount(labels)
    copies = len(labels) - len(sizes)
    return bool(copies >= max(_LEAST_COPIES, _LEAST_SHARE * len(labels)) and (sizes > 1).sum() >= _LEAST_GROUPS)


def _two_populations(found: Sequence[_Groups]) -> bool:
    near, below = sum(each.near for each in found), sum(each.below for each in found)
    within = sum(each.within for each in found)
    return below + _BY_CHANCE <= _AT_MOST_BETWEEN * near and near >= _LEAST_DENSITY * within


def _neighbours_alike(found: Sequence[_Groups]) -> bool:
    near, pairs = sum(each.near for each in found), sum(each.all for each in found)
    neighbours = sum(each.near_neighbours for each in found)
    share = neighbours / max(1, sum(len(each.labels) - 1 for each in found))
    return neighbours >= _LEAST_NEIGHBOURS and share >= max(_NEIGHBOURS_SHARE, _MORE_THAN_ANY * near / max(1, pairs))


def _components(linked: NDArray[np.bool_]) -> Labels:
    """Connected component of each of n images, (n,), from which are linked, (n, n)."""
    labels, count = np.full(len(linked), -1, np.int64), 0
    for first in range(len(linked)):
        if labels[first] >= 0:
            continue
        reached = new = np.arange(len(linked)) == first
        while new.any():
            new = linked[new].any(axis=0) & ~reached
            reached = reached | new
        labels[reached] = count
        count += 1
    return labels
