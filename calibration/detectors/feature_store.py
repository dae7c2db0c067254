"""Features on disk while calibration runs, so that memory does not grow with the number of images."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import numpy as np

from calibration.errors import DegenerateFeaturesError, StorageError
from calibration.statistics.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.detectors.head import Scorer
    from calibration.statistics.scores import Scores

    Float32 = NDArray[np.float32]

_BATCH = 64
_BATCH_BYTES = 2**24


def batch_images(shape: tuple[int, ...], images: int) -> int:
    """Images that ``batches`` reads at a time: no more than memory likes, where one is large.

    Args:
        shape: Of one array, (d, h, w).
        images: How many there are.
    """
    return max(1, min(_BATCH, images, _BATCH_BYTES // (4 * int(np.prod(shape)))))


class Features(Protocol):
    """Reduced features of images, wherever they lie: on this disk, or on the workers of a cluster.

    Attributes:
        shape: Of one array, (d, h, w).
    """

    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many there are."""

    def refuse_copies(self) -> None:
        """Raise DegenerateFeaturesError unless two images differ."""

    def batches(self, indices: Sequence[int]) -> Iterator[Float32]:
        """Features of some images, in their order, a few at a time: (n, d, h, w)."""

    def moments(self, indices: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
        """Moments of some images; ``vectors`` turns (n, d, h, w) into (locations, vectors, d)."""

    def scores(self, indices: Sequence[int], scorer: Scorer) -> Iterator[Scores]:
        """Scores of some images, in their order, a few at a time."""


class FeatureStore:
    """A temporary file of one float32 array an image, gone when closed.

    Read and written, not mapped: mapped pages would count as memory of the process.

    Args:
        folder: Where the file lies; on a disk with room for 4 bytes * images * d * h * w.
        shape: Of one array, (d, h, w).
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self._folder = folder
        self.shape = shape
        self._bytes = 4 * int(np.prod(shape))
        self.count = 0
        self._first: NDArray[np.float32] | None = None
        self._varies = False

    def __enter__(self) -> Self:
        """Make the file."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".shiftwatch-features-")
        except OSError as error:
            raise _storage_error(self._folder, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the file."""
        # Closing flushes, and on a full disk that fails once more; the error that matters is already on its way.
        with suppress(OSError):
            self._file.close()

    def append(self, features: NDArray[np.float32]) -> None:
        """Add the features of the next image.

        Raises:
            DegenerateFeaturesError: A value is not finite.
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
            raise all_alike()

    def batches(self, indices: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Features of some images, in their order, a few at a time: (n, d, h, w).

        Raises:
            StorageError: What was written cannot be flushed to disk.
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
        """Moments of some images; ``vectors`` turns (n, d, h, w) into (locations, vectors, d)."""
        batches = (vectors(batch) for batch in self.batches(indices))
        total = Moments.of(next(batches))
        for batch in batches:
            total.update(batch)
        return total

    def scores(self, indices: Sequence[int], scorer: Scorer) -> Iterator[Scores]:
        """Scores of some images, in their order, a few at a time."""
        return (scorer.scores(batch) for batch in self.batches(indices))


def refuse_not_finite(features: Float32) -> None:
    """Raise DegenerateFeaturesError if one is no number."""
    if not np.isfinite(features).all():
        raise DegenerateFeaturesError(
            what="the backbone gave features that are not finite numbers",
            remedy="check the weights; an FP16 network may have overflowed",
        )


def all_alike() -> DegenerateFeaturesError:
    """What is wrong with copies of one image."""
    return DegenerateFeaturesError(
        what="the features of all images are the same: nothing can be learnt about how good parts vary",
        remedy="give pictures of different good parts, not copies of one",
    )


def _storage_error(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        what=f"cannot keep features in {folder.absolute()}: {error.strerror}",
        remedy="free disk space there, or write the bundle to another disk",
    )
