"""PaDiM (Defard et al. 2021): a Gaussian of its own at every place, over a random choice of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calibration.covariance import whitening
from calibration.detectors import Fit, partial
from calibration.errors import SettingError
from calibration.graph import FeatureMap
from calibration.head import WhiteningHead
from calibration.moments import merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.feature_store import FeatureStore
    from calibration.graph import GraphBuilder
    from calibration.moments import Moments

_REGULARISER = 0.01  # section III-B of the paper
_SEED = 0


@dataclass(frozen=True, slots=True)
class Padim:
    """Parameters of the detector.

    Attributes:
        dimensions: Channels to keep, chosen at random (section III-C of the paper: 100 of ResNet18's 448); None keeps
            all.
    """

    name: ClassVar[str] = "padim"
    smaller: ClassVar[str] = "fewer --dimensions"

    dimensions: int | None = 100

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.dimensions is not None and self.dimensions < 1:
            raise SettingError(what=f"dimensions = {self.dimensions} is too small", remedy="give 1 or more")

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """The chosen channels."""
        del levels
        channels, *grid = features.shape
        if self.dimensions is None or self.dimensions >= channels:
            return features
        chosen = np.sort(np.random.default_rng(_SEED).choice(channels, self.dimensions, replace=False))
        name = graph.add("Gather", features.name, graph.ints(*chosen.tolist()), axis=1)
        return FeatureMap(name, (self.dimensions, grid[0], grid[1]))

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """Covariances, mostly."""
        return partial.memory_mib(reduced, images, reduced[1] * reduced[2])

    def fit(self, store: FeatureStore, folds: Sequence[Sequence[int]], levels: Sequence[int]) -> Fit:
        """Sigma_l = C_l + 0.01 I."""
        del levels
        parts = partial.fold_moments(store, folds)
        moments = merged(parts)
        held_out = (_head(others) for others in partial.without_each(parts))
        return Fit(_head(moments), held_out, {"dimensions": moments.mean.shape[1]}, moments.packed())


def _head(moments: Moments) -> WhiteningHead:
    covariances = moments.covariance()
    ridge = _REGULARISER * np.eye(covariances.shape[1])
    return WhiteningHead(moments.mean.astype(np.float32), whitening(covariances, lambda local: local + ridge))
