"""Reduced features on disk during calibration, so that memory does not grow with the number of images."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import numpy as np

from calibration.errors import StorageError
from calibration.statistics.moments import Moments, identical_features_error, refuse_not_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.detectors.head import Scorer
    from calibration.statistics.scores import Scores

    Float32 = NDArray[np.float32]

_BATCH = 64
_BATCH_BYTES = 2**24


def batch_images(shape: tuple[int, ...], images: int) -> int:
    """Number of images, of features (d, h, w) each, that ``batches`` reads at a time, limited by memory."""
    return max(1, min(_BATCH, images, _BATCH_BYTES // (4 * int(np.prod(shape)))))


class Features(Protocol):
    """Reduced features of images, on this disk or on the workers of a cluster.

    Attributes:
        shape: Shape of one image's features, (d, h, w).
    """

    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of images."""

    def refuse_copies(self) -> None:
        """Raise DegenerateFeaturesError unless two images differ."""

    def batches(self, indices: Sequence[int]) -> Iterator[Float32]:
        """Features of these images, in this order, a few at a time: (n, d, h, w)."""

    def moments(self, indices: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
        """Moments of these images; ``vectors`` turns (n, d, h, w) into (locations, vectors, d)."""

    def scores(self, indices: Sequence[int], scorer: Scorer) -> Iterator[Scores]:
        """Scores of these images, in this order, a few at a time."""


class FeatureStore:
    """A temporary file with one float32 array per image, removed when closed.

    It is read and written, not mapped: mapped pages would count as memory of the process.

    Args:
        folder: Folder of the file, on a disk with room for 4 bytes * images * d * h * w.
        shape: Shape of one image's features, (d, h, w).
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self._folder = folder
        self.shape = shape
        self._bytes = 4 * int(np.prod(shape))
        self.count = 0
        self._first: NDArray[np.float32] | None = None
        self._varies = False

    def __enter__(self) -> Self:
        """Create the file."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".shiftwatch-features-")
        except OSError as error:
            raise _storage_error(self._folder, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file."""
        # Closing flushes, which fails again on a full disk; the first error is already being raised.
        with suppress(OSError):
            self._file.close()

    def append(self, features: NDArray[np.float32]) -> None:
        """Add the features of the next image.

        Raises:
            DegenerateFeaturesError: A feature is not finite.
            StorageError: The disk is full.
        """
        refuse_not_finite(features)
        if self._first is None:
            self._first = features
        self._varies = self._varies or not np.array_equal(features, self._first)
        try:
            self._file.write(np.ascontiguousarray(features, np.float32).tobytes())
        except OSError as error:
            raise _storage_error(self._folder, error) from error
        self.count += 1

    def refuse_copies(self) -> None:
        """Raise DegenerateFeaturesError unless two images differ."""
        if not self._varies:
            raise identical_features_error()

    def batches(self, indices: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Features of these images, in this order, a few at a time: (n, d, h, w).

        Raises:
            StorageError: The file cannot be flushed to disk.
        """
        try:
            self._file.flush()
        except OSError as error:
            raise _storage_error(self._folder, error) from error
        size = batch_images(self.shape, len(indices))
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            batch = np.empty((len(chosen), *self.shape), np.float32)
            for row, index in enumerate(chosen):
                self._file.seek(index * self._bytes)
                batch[row] = np.frombuffer(self._file.read(self._bytes), np.float32).reshape(self.shape)
            yield batch

    def moments(self, indices: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
        """Moments of these images; ``vectors`` turns (n, d, h, w) into (locations, vectors, d)."""
        batches = (vectors(batch) for batch in self.batches(indices))
        total = Moments.of(next(batches))
        for batch in batches:
            total.update(batch)
        return total

    def scores(self, indices: Sequence[int], scorer: Scorer) -> Iterator[Scores]:
        """Scores of these images, in this order, a few at a time."""
        return (scorer.scores(batch) for batch in self.batches(indices))


def _storage_error(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        what=f"cannot keep features in {folder.absolute()}: {error.strerror}",
        remedy="free disk space there, or write the bundle to another disk",
    )
