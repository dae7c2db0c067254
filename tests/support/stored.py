from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from calibration.detectors.feature_store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@contextmanager
def stored(reduced: NDArray[np.float32], folder: Path) -> Iterator[FeatureStore]:
    """A store of these features, (n, d, h, w)."""
    with FeatureStore(folder, reduced.shape[1:]) as store:
        for each in reduced:
            store.append(each)
        yield store
