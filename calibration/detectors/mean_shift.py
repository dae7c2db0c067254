"""Mean-shift detection, and the family it belongs to.

With ``alpha`` = 1 this is Hermann et al. 2022 (Hotelling's T2 of the averaged features, one covariance for all
locations); with ``alpha`` near 0 it is PaDiM (Defard et al. 2021) at full rank. In between, each location's own
covariance is shrunk toward the pooled one, which measured better than either (see DESIGN.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from calibration.covariance import analytic_shrinkage, pooled_target, shrunk_whitening
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

Location: TypeAlias = Literal["local", "shared"]


@dataclass(frozen=True, slots=True)
class MeanShift:
    """Parameters of the detector.

    Attributes:
        alpha: Weight of the pooled covariance against the local one, in (0, 1]; None derives it from the moments.
        averaging: rho, side of the averaging region in grid cells: 1 + (A - R) / tau in Hermann et al. 2022, eq. 8.
        location: ``local`` learns each place of the picture for itself; ``shared`` learns one mean and covariance
            for all of them, for parts that do not sit still.
        ridge: Share of its own variance added to each channel of the pooled covariance.
    """

    name: ClassVar[str] = "mean_shift"
    smaller: ClassVar[str] = "--location shared"

    alpha: float | None = 0.1
    averaging: int = 2
    location: Location = "local"
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.alpha is not None and not 0.0 < self.alpha <= 1.0:
            raise SettingError(
                what=f"alpha = {self.alpha} is outside (0, 1]",
                remedy="give a share such as 0.1, or auto; zero would need more images than features",
            )
        if self.averaging < 1:
            raise SettingError(what=f"averaging = {self.averaging} cells is too small", remedy="give 1 or more")
        if self.location not in {"local", "shared"}:
            raise SettingError(what=f"location = {self.location!r} is not known", remedy="give local or shared")

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """The average over the averaging region, stride 1, no padding."""
        del levels
        channels, height, width = features.shape
        shrink = self.averaging - 1
        if min(height, width) <= shrink:
            raise SettingError(
                what=f"an averaging region of {self.averaging} cells is larger than the {height}x{width} grid",
                remedy=f"give --averaging {min(height, width)} or less, or a larger --size",
            )
        window = [self.averaging] * 2
        averaged = graph.add("AveragePool", features.name, kernel_shape=window, strides=[1, 1])
        return FeatureMap(averaged, (channels, height - shrink, width - shrink))

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """Covariances, mostly."""
        return partial.memory_mib(reduced, images, reduced[1] * reduced[2] if self.location == "local" else 1)

    def fit(self, store: FeatureStore, folds: Sequence[Sequence[int]], levels: Sequence[int]) -> Fit:
        """One look at the features: the moments of each fold, and sums of them."""
        del levels
        vectors = partial.by_location if self.location == "local" else partial.all_together
        parts = partial.fold_moments(store, folds, vectors)
        moments = merged(parts)
        held_out = (self.head(others) for others in partial.without_each(parts))
        resolved = self.resolved(moments)
        parameters = {**asdict(resolved), "alpha_from_moments": self.alpha is None}
        return Fit(resolved.head(moments), held_out, parameters, moments.packed())

    def head(self, moments: Moments) -> WhiteningHead:
        """The head for these moments.

        mu_l = mean of P_l, Sigma_l = (1 - alpha) C_l + alpha (S + ridge), W_l its inverse Cholesky factor.

        Raises:
            DegenerateFeaturesError: Fewer than two images, or all alike.
        """
        covariances = moments.covariance()
        target = pooled_target(covariances, self.ridge)
        alpha = self.resolved(moments).alpha or 1.0
        return WhiteningHead(moments.mean.astype(np.float32), shrunk_whitening(covariances, target, alpha))

    def resolved(self, moments: Moments) -> MeanShift:
        """The same with its alpha as a number."""
        if self.location == "shared":
            return replace(self, alpha=1.0)  # one location: its covariance is the pooled one
        if self.alpha is not None:
            return self
        return replace(self, alpha=analytic_shrinkage(moments.covariance(), moments.count, self.ridge))
