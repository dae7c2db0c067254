"""Good parts that a device has collected, to learn on from: network inputs and reduced features, on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.feature_store import FeatureStore

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.engine.onnxruntime import OnnxRuntimeEngine
    from calibration.preprocess import Image


class Collection:
    """Parts in the order in which they came; gone when closed.

    Args:
        folder: On a disk with room for the network input and the reduced features of each part.
        engine: Entered already; of a network that ``network.reducing`` or ``feature_network`` made.
    """

    def __init__(self, folder: Path, engine: OnnxRuntimeEngine) -> None:
        self._folder = folder
        self._engine = engine
        self._frames: FeatureStore | None = None
        self.names: list[str] = []

    def __enter__(self) -> Self:
        """Begin with none."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the files."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def add(self, name: str, frame: Image) -> None:
        """One more part.

        Args:
            name: Of its result.
            frame: Network input, (height, width, 3).

        Raises:
            DegenerateFeaturesError: Its features are not finite.
            StorageError: The disk is full.
        """
        raise NotImplementedError

    def frame(self, index: int) -> Image:
        """Network input of a part."""
        raise NotImplementedError

    def features(self) -> NDArray[np.float32]:
        """Reduced features of all, (n, d, h, w)."""
        raise NotImplementedError
