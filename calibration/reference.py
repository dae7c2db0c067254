"""What the good frames looked like as pictures, so that the agent can tell when the camera has changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.preprocess import Image

THUMBNAIL = 32


def sharpness(frame: Image) -> float:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al. 2000): falls when the lens is blurred."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var())


@dataclass
class ReferenceStatistics:
    """Running mean and spread of brightness, sharpness and thumbnail over the good frames.

    All are taken on the network input (after ``Preprocess``), so that they mean the same on every camera.
    """

    count: int = 0
    _brightness: list[NDArray[np.float64]] = field(default_factory=list)
    _sharpness: list[float] = field(default_factory=list)
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL)))
    _squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL)))

    def update(self, frame: Image) -> None:
        """Add one good frame, (height, width, 3)."""
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float64)
        self.count += 1
        self._brightness.append(np.array(cv2.mean(frame)[:3]))
        self._sharpness.append(sharpness(frame))
        self._sum += thumbnail
        self._squares += thumbnail**2

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Arrays for the bundle.

        ``brightness`` (n, 3) BGR and ``sharpness`` (n,) of every good frame; ``thumbnail_mean`` and
        ``thumbnail_std`` (32, 32), grey.
        """
        mean = self._sum / max(self.count, 1)
        variance = np.maximum(self._squares / max(self.count, 1) - mean**2, 0.0)
        return {
            "brightness": np.array(self._brightness).reshape(-1, 3),
            "sharpness": np.array(self._sharpness),
            "thumbnail_mean": mean,
            "thumbnail_std": np.sqrt(variance),
        }
