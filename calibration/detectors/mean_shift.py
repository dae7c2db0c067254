"""Mean-shift detection, and the family it belongs to.

With ``alpha`` = 1 this is Hermann et al. 2022 (Hotelling's T2 of the averaged features, one covariance for all
locations); with ``alpha`` near 0 it is PaDiM (Defard et al. 2021) at full rank. In between, each location's own
covariance is shrunk toward the pooled one, which measured better than either (see DESIGN.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from calibration.covariance import analytic_shrinkage, pooled_target, shrunk_whitening
from calibration.errors import SettingError
from calibration.head import WhiteningHead

if TYPE_CHECKING:
    from numpy.typing import NDArray

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

    def fit(self, moments: Moments) -> WhiteningHead:
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

    def score_maps(self, head: WhiteningHead, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """T2 of every location of every image, (n, h, w), in NumPy.

        Args:
            head: From ``fit``.
            pooled: (n, d, h, w).
        """
        count, channels, height, width = pooled.shape
        flat = pooled.reshape(count, channels, height * width).transpose(2, 0, 1)
        return head.distances(flat).reshape(count, height, width)
