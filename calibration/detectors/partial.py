"""What is learnt from moments: those of all images, and of all but a fold, are sums of those of the folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors import Fit
from calibration.detectors.modes import SAMPLE
from calibration.feature_store import batch_images
from calibration.moments import Moments, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.detectors import Folds
    from calibration.feature_store import FeatureStore
    from calibration.head import Head, Scorer

    Float32 = NDArray[np.float32]


def by_location(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of each place, (h * w, n, d)."""
    count, channels, height, width = reduced.shape
    return np.ascontiguousarray(reduced.reshape(count, channels, height * width).transpose(2, 0, 1))


def all_together(reduced: Float32) -> Float32:
    """(n, d, h, w) as vectors of one place, (1, n * h * w, d)."""
    together: Float32 = reduced.reshape(*reduced.shape[:2], -1).transpose(0, 2, 1).reshape(1, -1, reduced.shape[1])
    return together


def fold_moments(
    store: FeatureStore, folds: Folds, vectors: Callable[[Float32], Float32] = by_location
) -> list[Moments]:
    """Moments of each fold, in one look at the features."""
    return [moments(store, fold, vectors) for fold in folds.parts]


def fit(  # noqa: PLR0913, PLR0917 - what makes a detector of moments
    store: FeatureStore,
    folds: Folds,
    vectors: Callable[[Float32], Float32],
    head: Callable[[Moments], Head],
    parameters: Callable[[Moments], Mapping[str, float | str | bool]],
    left_out: Callable[[Moments], Scorer] | None,
) -> Fit:
    """A fit in one look at the features.

    Args:
        store: Reduced features.
        folds: Which images are held out together, unless each can be left out alone.
        vectors: (n, d, h, w) to (locations, vectors, d).
        head: From moments.
        parameters: In force, from the moments of all images.
        left_out: From the moments of all images, what scores each as if it were not among them; None if that is
            not known.
    """
    if left_out and folds.independent:
        total = moments(store, folds.images, vectors)
        unseen = left_out(total)
        held_out: Iterator[Scorer] = (unseen for _ in folds.parts)
        return Fit(head(total), held_out, parameters(total), total.packed(), one_by_one=True)
    parts = fold_moments(store, folds, vectors)
    total = merged(parts)
    return Fit(head(total), (head(others) for others in without_each(parts)), parameters(total), total.packed())


def without_each(parts: list[Moments]) -> Iterator[Moments]:
    """For each part, the moments of all others, one at a time."""
    for held in range(len(parts)):
        yield merged([*parts[:held], *parts[held + 1 :]])


def moments(store: FeatureStore, images: Sequence[int], vectors: Callable[[Float32], Float32] = by_location) -> Moments:
    """Moments of some images."""
    batches = (vectors(batch) for batch in store.batches(images))
    total = Moments.of(next(batches))
    for batch in batches:
        total.update(batch)
    return total


def memory_mib(reduced: tuple[int, int, int], images: int, locations: int, modes: int = 1) -> float:
    """Five folds, their sum, the sum of the others, a covariance and four whitenings; and a batch being added.

    Where there are several means, the sample that they are looked for in, three times.
    """
    picture = int(np.prod(reduced))
    batch = batch_images(reduced, images) * picture
    sample = 0 if modes == 1 else 3 * min(SAMPLE, images) * picture
    return (10 * locations * reduced[0] ** 2 * 8 + (6 * batch + sample) * 4) / 2**20
