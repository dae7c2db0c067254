"""PaDiM (Defard et al. 2021): a Gaussian at every location, over a random choice of channels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calibration.detectors import fold_moments
from calibration.detectors.head import WhiteningHead
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.covariance import whitening
from calibration.statistics.leave_one_out import LeaveOneOut

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Fit, Folds
    from calibration.detectors.feature_store import Features
    from calibration.detectors.head import Scorer
    from calibration.onnx_graph import GraphBuilder
    from calibration.statistics.moments import Moments

_REGULARISER = 0.01  # section III-B of the paper
_SEED = 0


@dataclass(frozen=True, slots=True)
class Padim:
    """The detector and its parameters.

    Attributes:
        dimensions: Channels to keep, chosen at random (section III-C of the paper: 100 of ResNet18's 448); None keeps
            all.
    """

    name: ClassVar[str] = "padim"
    memory_advice: ClassVar[str] = "fewer dimensions (--detector padim:dimensions=50)"

    dimensions: int | None = 100

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.dimensions is not None and self.dimensions < 1:
            raise SettingError(what=f"dimensions = {self.dimensions} is too small", remedy="give 1 or more")

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Keep the chosen channels."""
        del levels
        channels, *grid = features.shape
        if self.dimensions is None or self.dimensions >= channels:
            return features
        chosen = np.sort(np.random.default_rng(_SEED).choice(channels, self.dimensions, replace=False))
        name = graph.add("Gather", features.name, graph.ints(*chosen.tolist()), axis=1)
        return FeatureMap(name, (self.dimensions, grid[0], grid[1]))

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """Mostly covariances."""
        return fold_moments.memory_mib(reduced, images, reduced[1] * reduced[2])

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Fit from the moments of all images; see ``head``."""
        del levels
        held_out: Iterator[Scorer]
        if folds.independent:
            total = store.moments(folds.images, self.vectors)
            held_out = repeat(self.leave_one_out_scorer(total, None), len(folds.groups))
        else:
            total, held_out = fold_moments.moments_and_fold_heads(self, store, folds)
        return fold_moments.moment_fit(self, store, total, held_out, leave_one_out=folds.independent)

    def vectors(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, d, h, w) as vectors of each location: (locations, n, d)."""
        return fold_moments.by_location(reduced)

    def head(self, moments: Moments) -> WhiteningHead:
        """The head for these moments: Sigma_l = C_l + 0.01 I."""
        return WhiteningHead(moments.mean.astype(np.float32), whitening(moments.covariance(), _regularised, np.float32))

    def leave_one_out_scorer(
        self, moments: Moments, image: NDArray[np.float32] | None, weight: float = 1.0
    ) -> LeaveOneOut:
        """Scores images of these moments, each with this weight in them, as if the moments were without them."""
        del image
        return LeaveOneOut(moments, _regularised, own_weight=1.0, order=inf, image_weight=weight)

    def parameters(self, moments: Moments) -> dict[str, float | str | bool]:
        """The parameters in force, for the manifest."""
        return {"dimensions": moments.mean.shape[1]}


def _regularised(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    regularised: NDArray[np.float64] = covariances + _REGULARISER * np.eye(covariances.shape[-1])
    return regularised
