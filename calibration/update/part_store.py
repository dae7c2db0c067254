"""Parts that a device has collected for a refit: network inputs and reduced features, on disk."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from calibration.detectors.feature_store import FeatureStore
from calibration.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.engine.onnxruntime import OnnxRuntimeEngine
    from calibration.imaging.preprocess import Image


class PartStore:
    """Parts in the order in which they came; removed when closed.

    Args:
        folder: On a disk with room for the network input and the reduced features of each part.
        engine: Entered already; runs the network of ``network.without_head`` or ``feature_network``. None stores
            network inputs alone, which is enough for a new threshold.

    Attributes:
        names: Names of the parts.
    """

    def __init__(self, folder: Path, engine: OnnxRuntimeEngine | None) -> None:
        self._folder = folder
        self._engine = engine
        self._resources = ExitStack()
        self._shape: tuple[int, ...] = ()
        self.names: list[str] = []
        self._features: FeatureStore | None = None

    def __enter__(self) -> Self:
        """Make the file of network inputs.

        Raises:
            StorageError: The folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._resources.enter_context(tempfile.TemporaryFile(dir=self._folder))
        except OSError as error:
            raise self._no_room(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the files."""
        self._resources.close()

    def __len__(self) -> int:
        """Number of parts."""
        return len(self.names)

    def add(self, name: str, frame: Image) -> None:
        """Add a part by its name and network input, (height, width, 3), of the same size as those before.

        Raises:
            DegenerateFeaturesError: A feature is not finite.
            StorageError: The disk is full.
        """
        if self._engine is not None:
            reduced = self._engine.reduced(frame)
            if self._features is None:
                self._features = self._resources.enter_context(FeatureStore(self._folder, reduced.shape))
            self._features.append(reduced)
        self._shape = frame.shape
        try:
            self._file.seek(len(self.names) * frame.nbytes)
            self._file.write(frame.tobytes())
            self._file.flush()
        except OSError as error:
            raise self._no_room(error) from error
        self.names.append(name)

    def frame(self, index: int) -> Image:
        """Network input of a part."""
        size = int(np.prod(self._shape))
        self._file.seek(index * size)
        return np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)

    def reduced(self, index: int) -> NDArray[np.float32]:
        """Reduced features of a part, (d, h, w)."""
        batch = next(self.features.batches([index]))
        reduced: NDArray[np.float32] = batch[0]
        return reduced

    def reduce(self, frame: Image) -> NDArray[np.float32]:
        """Reduced features of a frame that is not among the parts."""
        assert self._engine is not None  # noqa: S101 - callers that need features have given an engine
        return self._engine.reduced(frame)

    @property
    def features(self) -> FeatureStore:
        """Reduced features of the parts, in their order."""
        assert self._features is not None  # noqa: S101 - as above, and added parts
        return self._features

    def another_store(self) -> FeatureStore:
        """Room for features of images that are not among the parts; removed with these."""
        return self._resources.enter_context(FeatureStore(self._folder, self.features.shape))

    def _no_room(self, error: OSError) -> StorageError:
        return StorageError(
            what=f"cannot keep collected parts in {self._folder.absolute()}: {error.strerror}",
            remedy="make room on that disk, or collect fewer parts",
        )
