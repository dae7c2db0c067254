"""The head that ends the network: subtract, whiten, square, sum, and the maximum over the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class WhiteningHead:
    """Mahalanobis distance to the good parts, squared, at every location.

    Attributes:
        mean: mu, (locations or 1, d), float32.
        whitening: W, (locations or 1, d, d), float32; one location means all share it.
    """

    mean: Float32
    whitening: Float32

    def distances(self, vectors: Float32) -> Float32:
        """T2_l = || W_l (P_l - mu_l) ||^2 in plain NumPy, the reference for the network.

        Args:
            vectors: P, (locations, n, d).

        Returns:
            T2, (n, locations), float32.
        """
        centred = vectors - self.mean[:, None]
        whitened = np.matmul(centred, self.whitening.transpose(0, 2, 1))
        distances: Float32 = np.square(whitened, out=whitened).sum(axis=2).T
        return distances
