"""Whether the place before the camera is empty, compared with an image of the empty place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.camera_checks.frame_statistics import match_light
from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image, Preprocess

REMEDY = "give the empty place another colour or light than every part has, or let the line trigger"

_HALF_WAY = 0.5
_SAME_LEVELS = 2.0


class EmptyPlace:
    """Recognises the empty place.

    The place is empty if it is less than half as far from the image of the empty place as the nearest good part is;
    brightness may differ by 30 %. Everything else is a part, however little it resembles a good one: none may pass
    uninspected. A good image within two grey levels of the empty place is no part: it shows the empty place.

    Args:
        empty: Image of the empty place, as the camera gives it.
        preprocess: The preprocessing of the bundle.
        reference: Arrays of ``reference.npz``. Of an older bundle only the golden frames are known.

    Attributes:
        limit: Distance from which on there is a part.

    Raises:
        DatasetError: The region of interest does not fit into the image.
    """

    def __init__(self, empty: Image, preprocess: Preprocess, reference: Mapping[str, NDArray[Any]]) -> None:
        self._preprocess = preprocess
        mean, deviation = (reference[name].astype(np.float32) for name in ("thumbnail_mean", "thumbnail_std"))
        self._size = mean.shape
        self._empty = self._small(preprocess(empty))
        # The mean square distance of single good parts, whose positions vary, not that of their mean.
        self._usual = max(math.hypot(self._levels(mean), float(np.sqrt(np.mean(deviation**2)))), 1.0)
        known = reference.get("small_frames")
        good = reference["golden_frames"][:-1] if known is None else known
        self._good = np.array([self._levels(self._small(each)) for each in good]) / self._usual
        parts = self._good[self._good * self._usual >= _SAME_LEVELS]
        self.limit = _HALF_WAY * min(parts.min(initial=1.0), 1.0)

    def __call__(self, image: Image) -> bool:
        """Whether a frame, into which the region of interest must fit, shows the empty place."""
        return bool(self.distance(image) < self.limit)

    def distance(self, image: Image) -> float:
        """Distance from the empty place (0); good parts are at about 1."""
        return self._levels(self._small(self._preprocess(image))) / self._usual

    @property
    def summary(self) -> str:
        """What counts as empty, with figures."""
        nearest, farthest = self._good.min(), self._good.max()
        return (
            f"{self._good.size} good images are at {nearest:.2f} to {farthest:.2f} from it, usually 1; below "
            f"{self.limit:.2f} the place counts as empty"
        )

    @property
    def doubt(self) -> str | None:
        """Why parts may be mixed up with the empty place; None if they are not."""
        levels = 2 * _SAME_LEVELS
        near = int((self._good * self._usual < levels).sum())
        if not near:
            return None
        return (
            f"{near} of the {self._good.size} good images differ from the empty place by less than {levels:g} grey "
            "levels: strays to leave out of calibration, or parts that may get no result"
        )

    def _levels(self, seen: NDArray[np.float32]) -> float:
        """Distance in grey levels."""
        return float(np.sqrt(np.mean((seen - match_light(self._empty, seen)) ** 2)))

    def _small(self, prepared: Image) -> NDArray[np.float32]:
        rows, columns = self._size
        grey = prepared if prepared.ndim < 3 else to_grey(prepared)  # noqa: PLR2004 - without colours
        return cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
