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
from calibration.detectors import Fit
from calibration.errors import SettingError
from calibration.graph import FeatureMap
from calibration.head import WhiteningHead
from calibration.moments import Moments, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.feature_store import FeatureStore
    from calibration.graph import GraphBuilder

Location: TypeAlias = Literal["local", "shared"]
_HELD_FOLDS = 5


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
        kernel = {"kernel_shape": [self.averaging] * 2, "strides": [1, 1]}
        return FeatureMap(
            graph.add("AveragePool", features.name, **kernel), (channels, height - shrink, width - shrink)
        )

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """Covariances of each fold, of all, and while they are inverted."""
        del images
        channels, height, width = reduced
        locations = height * width if self.location == "local" else 1
        return (_HELD_FOLDS + 3) * locations * channels**2 * 8 / 2**20

    def fit(self, store: FeatureStore, folds: Sequence[Sequence[int]]) -> Fit:
        """One look at the features: the moments of each fold, and sums of them."""
        parts = [self.moments(store, fold) for fold in folds]
        others = (merged([*parts[:held], *parts[held + 1 :]]) for held in range(len(parts)))
        moments = merged(parts)
        resolved = self.resolved(moments)
        parameters = {**asdict(resolved), "alpha_from_moments": self.alpha is None}
        return Fit(self.head(moments), (self.head(each) for each in others), parameters, moments.packed())

    def moments(self, store: FeatureStore, images: Sequence[int]) -> Moments:
        """Moments of the features of some images."""
        batches = (self.vectors(batch) for batch in store.batches(images))
        moments = Moments.of(next(batches))
        for batch in batches:
            moments.update(batch)
        return moments

    def vectors(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pooled features in the order the statistics want them.

        Args:
            pooled: (n, d, h, w).

        Returns:
            (h * w, n, d) for ``local``; (1, n * h * w, d) for ``shared``.
        """
        count, channels, height, width = pooled.shape
        flat = pooled.reshape(count, channels, height * width)
        if self.location == "local":
            return np.ascontiguousarray(flat.transpose(2, 0, 1))
        together: NDArray[np.float32] = flat.transpose(0, 2, 1).reshape(1, -1, channels)
        return together

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
