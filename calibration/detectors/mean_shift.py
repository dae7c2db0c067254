"""Mean-shift detection after Hermann et al. 2022, with a covariance between PaDiM's and one for all locations.

With ``alpha`` = 1 all locations share one covariance, as in Hermann et al.; but it is that of averaged features around
the mean of each location, with a ridge instead of Ledoit and Wolf's shrinkage. What they published is ``hotelling``.
With ``alpha`` near 0 it is PaDiM (Defard et al. 2021) at full rank. In between, each location's own covariance is
shrunk toward the pooled one, which measured better than either (see DESIGN.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from calibration.detectors import fold_moments
from calibration.detectors.contract import Fit
from calibration.detectors.embedding import join_patches, project_randomly
from calibration.detectors.head import WhiteningHead
from calibration.detectors.kmeans import fit_modes
from calibration.errors import DegenerateFeaturesError, SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.covariance import pooled_target, shrunk_whitening
from calibration.statistics.leave_one_out import LeaveOneOut
from calibration.statistics.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.detectors.head import Scorer
    from calibration.detectors.kmeans import Modes
    from calibration.onnx_graph import GraphBuilder

Location: TypeAlias = Literal["local", "shared", "global"]


@dataclass(frozen=True, slots=True)
class MeanShift:
    """The detector and its parameters.

    Attributes:
        alpha: Weight of the pooled covariance against the local one, in (0, 1].
        averaging: rho, side of the averaging region in grid cells: 1 + (A - R) / tau in Hermann et al. 2022, eq. 8.
        location: ``local`` fits every location on its own. ``shared`` fits one mean and covariance for all locations,
            for parts whose position varies. ``global`` averages over the whole image.
        pooling_order: Order of the generalised mean over locations that makes the score. Infinity takes the largest,
            which finds the smallest defects; lower orders favour defects that spread over several locations.
        patch: Side of the patches whose cells are joined into one vector: 1 + (R - R0) / tau, where R0 is the patch
            size of one cell.
        dimensions: Random orthonormal directions that the vectors are projected onto first; None keeps all.
        modes: Means per location, for several kinds of good parts on one production line.
        ridge: Share of its own variance added to each channel of the pooled covariance.
    """

    name: ClassVar[str] = "mean_shift"
    memory_advice: ClassVar[str] = "--location shared, fewer --dimensions, for large patches --detector hotelling"

    alpha: float = 0.3
    averaging: int = 2
    location: Location = "local"
    pooling_order: float = 8.0
    patch: int = 1
    dimensions: int | None = None
    modes: int = 1
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0.0 < self.alpha <= 1.0:
            raise SettingError(
                what=f"alpha = {self.alpha} is outside (0, 1]",
                remedy="give a share such as 0.1; zero would need more images than features",
            )
        if self.location not in {"local", "shared", "global"}:
            raise SettingError(what=f"location = {self.location!r} is not known", remedy="give local, shared or global")
        if not self.pooling_order >= 1.0:
            raise SettingError(
                what=f"pooling order = {self.pooling_order} is below 1", remedy="give 1 or more, e.g. 8, or inf"
            )
        for name, cells in (("averaging", self.averaging), ("patch", self.patch)):
            if cells < 1:
                raise SettingError(what=f"{name} = {cells} cells is too small", remedy="give 1 or more")
        for name, number in (("dimensions", self.dimensions), ("modes", self.modes)):
            if number is not None and number < 1:
                raise SettingError(what=f"{name} = {number} is too small", remedy="give 1 or more")

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Join patches, project them, and average over the averaging region (stride 1, no padding)."""
        del levels
        patches = project_randomly(graph, join_patches(graph, features, self.patch), self.dimensions)
        channels, height, width = patches.shape
        if self.location == "global":
            return FeatureMap(graph.add("GlobalAveragePool", patches.name), (channels, 1, 1))
        shrink = self.averaging - 1
        if min(height, width) <= shrink:
            raise SettingError(
                what=f"an averaging region of {self.averaging} cells is larger than the {height}x{width} grid",
                remedy=f"give --averaging {min(height, width)} or less, or a larger --size",
            )
        window = [self.averaging] * 2
        averaged = graph.add("AveragePool", patches.name, kernel_shape=window, strides=[1, 1])
        return FeatureMap(averaged, (channels, height - shrink, width - shrink))

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """Mostly covariances."""
        locations = 1 if self.location == "shared" else reduced[1] * reduced[2]
        return fold_moments.memory_mib(reduced, images, locations, self.modes)

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Fit from the moments of all images; held-out scores come from sums of the folds' moments."""
        del levels
        if self.modes > 1:
            return self._fit_modes(store, folds)
        held_out: Iterator[Scorer]
        leave_one_out = folds.independent and self.location != "shared"
        if leave_one_out:
            total, pooled = fold_moments.moments_and_pooled_covariances(store, folds)
            held_out = (self._leave_one_out(total, others) for others in pooled)
        else:
            total, held_out = fold_moments.moments_and_fold_heads(self, store, folds)
        return fold_moments.moment_fit(self, store, total, held_out, leave_one_out=leave_one_out)

    def vectors(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, d, h, w) as vectors of each location, or of one that all share: (locations, vectors, d)."""
        reshape = fold_moments.across_locations if self.location == "shared" else fold_moments.by_location
        return reshape(reduced)

    def head(self, moments: Moments) -> WhiteningHead:
        """The head for these moments.

        mu_l = mean of P_l, Sigma_l = (1 - alpha) C_l + alpha (S + ridge), W_l the inverse Cholesky factor of Sigma_l.

        Raises:
            DegenerateFeaturesError: Fewer than two images, or all alike.
        """
        whitening = self._whitening(moments.covariance())
        return WhiteningHead(moments.mean.astype(np.float32), whitening, self.pooling_order)

    def _whitening(self, covariances: NDArray[np.float64]) -> NDArray[np.float32]:
        return shrunk_whitening(covariances, pooled_target(covariances, self.ridge), self._effective_alpha)

    @property
    def _effective_alpha(self) -> float:
        """1 with a single location, whose covariance is the pooled one."""
        return self.alpha if self.location == "local" else 1.0

    def leave_one_out_scorer(self, moments: Moments, image: NDArray[np.float32] | None, weight: float = 1.0) -> Scorer:
        """Scores one image of these moments as if the moments were without it; any image, but for its pooled share.

        Where all locations share one mean, a single image hardly changes it and is not taken out.

        Args:
            moments: Moments of all images.
            image: Reduced features of the image that will be scored, (1, d, h, w). None scores any of them, and leaves
                its share in the pooled covariance.
            weight: Its weight in the moments.
        """
        if self.location == "shared":
            return self.head(moments)
        if image is None:
            return self._leave_one_out(moments, moments.covariance().mean(axis=0), weight)
        pooled = fold_moments.pooled_covariance_without(moments, Moments.of(self.vectors(image)).weighted(weight))
        return self._leave_one_out(moments, pooled, weight)

    def _leave_one_out(self, moments: Moments, pooled: NDArray[np.float64], image_weight: float = 1.0) -> LeaveOneOut:
        """As ``leave_one_out_scorer``, with the pooled covariance (d, d) of images other than the scored ones."""
        target, alpha = pooled_target(pooled[None], self.ridge), self._effective_alpha
        own, fixed = 1 - alpha, alpha * target
        if self.location == "global":  # the pooled covariance is that of the one location: only the ridge is fixed
            own, fixed = 1.0, target - pooled
        return LeaveOneOut(
            moments,
            lambda local: own * local + fixed,
            own_weight=own,
            order=self.pooling_order,
            image_weight=image_weight,
        )

    def _fit_modes(self, store: Features, folds: Folds) -> Fit:
        modes = fit_modes(store, folds.images, self.vectors, self.modes)
        held_out = (
            self._modes_head(fit_modes(store, others, self.vectors, self.modes)) for others in folds.complements()
        )
        return Fit(self._modes_head(modes), held_out, self.parameters(modes))

    def _modes_head(self, modes: Modes) -> WhiteningHead:
        covariances = modes.covariance()
        if not covariances.any():
            raise DegenerateFeaturesError(
                what=f"with {self.modes} means per location, nothing varies around the means",
                remedy="give fewer --modes, or more images of different good parts",
            )
        whitening = self._whitening(covariances)
        mean = modes.means.mean(axis=1)
        whitened = np.matmul(modes.means - mean[:, None], whitening.transpose(0, 2, 1))
        return WhiteningHead(mean.astype(np.float32), whitening, self.pooling_order, whitened.astype(np.float32))

    def parameters(self, moments: Moments | Modes) -> dict[str, float | str | bool]:
        """The parameters in force, for the manifest; JSON has no infinity."""
        del moments
        given = {name: value for name, value in asdict(self).items() if value is not None}
        order = "inf" if self.pooling_order == inf else self.pooling_order
        return {**given, "alpha": self._effective_alpha, "pooling_order": order}
