"""How well score maps localise defects: figures over pixels, in memory that does not grow with the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Over histograms: exact ranks of every pixel of every image would not fit into memory. All positive numbers that are
# normal in float32 have a bin, since the scale of the scores is that of the detector: a product of two distances of
# trained features lies around e^-6, and whatever shares the lowest bin is not ranked. A bin is 1.5 % wide.
_LOWEST, _HIGHEST = -88.0, 89.0
_BINS = 11_800
_MOST_FALSE_POSITIVES = 0.3


class PixelHistogram:
    """Pixels counted by score, on a logarithmic scale: good ones, defective ones, and the mean defective region.

    Attributes:
        good: Pixels outside all masks, (bins,), lowest score first.
        defective: Pixels inside a mask.
        regions: Connected regions of masks.
    """

    def __init__(self) -> None:
        self._edges = np.linspace(_LOWEST, _HIGHEST, _BINS + 1)
        self.good = np.zeros(_BINS)
        self.defective = np.zeros(_BINS)
        self.regions = 0
        self._region_shares = np.zeros(_BINS)

    def add(
        self, score_map: NDArray[np.float32], mask: NDArray[np.bool_], inspected: NDArray[np.bool_] | None = None
    ) -> None:
        """Count one image.

        Args:
            score_map: (h, w), covering the image from edge to edge.
            mask: (rows, columns), true where the defect is; the map is enlarged to it.
            inspected: Of the same size, true where pixels count; None: everywhere.
        """
        rows, columns = mask.shape
        inspected = np.ones_like(mask) if inspected is None else inspected
        grown = cv2.resize(score_map, (columns, rows), interpolation=cv2.INTER_LINEAR)
        values = np.clip(np.log(np.maximum(grown, np.finfo(np.float32).tiny)), _LOWEST, _HIGHEST)
        self.good += self._counts(values[~mask & inspected])
        self.defective += self._counts(values[mask & inspected])
        labels, labelled = cv2.connectedComponents((mask & inspected).astype(np.uint8), connectivity=8)
        for label in range(1, labels):
            counts = self._counts(values[labelled == label])
            self._region_shares += counts / counts.sum()
            self.regions += 1

    @property
    def scores(self) -> NDArray[np.float64]:
        """Logarithm of the score in the middle of each bin."""
        middle: NDArray[np.float64] = (self._edges[1:] + self._edges[:-1]) / 2
        return middle

    def region_overlap(self) -> float | None:
        """PRO: mean share of each region that is found, averaged over false-positive rates up to 30 %.

        Per-region overlap (Bergmann et al. 2021): a small defect counts as much as a large one.

        Returns:
            0 to 1; None without masks or good pixels.
        """
        if not self.regions or not self.good.any():
            return None
        false_positives = _above(self.good) / self.good.sum()
        overlap = _above(self._region_shares) / self.regions
        last = float(np.interp(_MOST_FALSE_POSITIVES, false_positives, overlap))
        inside = false_positives < _MOST_FALSE_POSITIVES
        rates = np.append(false_positives[inside], _MOST_FALSE_POSITIVES)
        shares = np.append(overlap[inside], last)
        area = np.sum(np.diff(rates) * (shares[1:] + shares[:-1]) / 2)
        return float(area / _MOST_FALSE_POSITIVES)

    def _counts(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.histogram(values, _BINS, (_LOWEST, _HIGHEST))[0].astype(np.float64)


def _above(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative counts from the highest bin down, beginning with 0."""
    return np.concatenate([[0.0], np.cumsum(counts[::-1])])
