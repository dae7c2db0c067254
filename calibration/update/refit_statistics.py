"""Statistics of an old bundle updated with those of collected parts, and the scores of the parts under them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from calibration.detectors.cross_validation import make_folds
from calibration.detectors.suspicious import suspicious_indices
from calibration.errors import DatasetError
from calibration.statistics.moments import Moments
from calibration.statistics.optimal_transport import transport
from calibration.statistics.outliers import outlier_indices
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.detectors.contract import AdditiveDetector
    from calibration.detectors.damaged_images import DamagedImages
    from calibration.detectors.head import WhiteningHead
    from calibration.progress import Progress
    from calibration.update.part_store import PartStore


Statistics: TypeAlias = Literal["mean", "full", "teach"]

_MIN_SPREAD_RATIO = 0.1
_MIN_PATTERN_RATIO = 0.5
_MIN_PATTERN_SHARE = 0.75
_MIN_CORRELATION = 0.8
_MAX_MEDIAN_SCORE = 3.0
_MAX_PEAK_RATIO = 5.0
_MEDIAN_IMAGES = 200
_MAX_DISTANCE_RATIO = 30.0
_EPSILON = 1e-6


class Refit:
    """Moments of collected parts, together with those of an old bundle.

    Only one set of moments exists at a time: on a device each takes as much memory as the old one.

    Args:
        parts: Collected parts, with features.
        detector: The detector of the bundle.
        kind: ``mean``: the parts' means with the old covariances. ``full``: the old moments, transported to the new
            conditions, plus those of the parts.
        old: Moments of the old bundle, of the same features; None uses the parts alone, whatever the kind.
        old_weight: Weight of an old image against a part, in ``full``.

    Raises:
        DatasetError: The parts show another product, or hardly differ (the production line stands still).
    """

    def __init__(
        self, parts: PartStore, detector: AdditiveDetector, kind: Statistics, old: Moments | None, old_weight: float
    ) -> None:
        self._parts = parts
        self._detector = detector
        self._kind = kind
        self._old: Moments | None = None
        self._transported: Moments | None = None
        if old is None:
            return
        inliers = self._moments(self._inliers())
        _refuse_another_product(mean_correlation(old, inliers))
        _refuse_standstill(old, inliers)
        self._transported = transport(old, inliers)
        if kind == "mean":
            self._old = old
        elif old_weight > 0:
            self._old = self._transported = self._transported.weighted(old_weight)

    def outliers(self, threshold: float) -> list[int]:
        """Indices of the parts that score far above the others, highest first.

        They are scored under the transported old moments, or by cross-validation if there are none. Call it once,
        before ``moments``: the transported moments are then dropped.

        Args:
            threshold: Threshold of the old bundle.

        Raises:
            DatasetError: Most parts differ more than a change of light explains, or at one location alone.
        """
        indices = list(range(len(self._parts)))
        if self._transported is None:
            scores = self.cross_validated_scores(indices, sequential=False, progress=lambda *_: None)
        else:
            scores = self._scores(self._detector.head(self._transported), indices)
            _refuse_high_median(float(np.median(scores.score)) / threshold)
            _refuse_same_defect(np.median(scores.map, axis=0))
        is_new = self._transported is None
        self._transported = None
        odd = scores.score.astype(np.float64)
        return suspicious_indices(odd, self._parts.features, indices) if is_new else outlier_indices(odd)

    def cross_validated_scores(
        self, kept: list[int], *, sequential: bool, progress: Progress, damaged: DamagedImages | None = None
    ) -> Scores:
        """Scores of these parts, each under moments without its fold, in the order of ``kept``.

        Damaged copies of them, if there are any, are scored with the fold of their original.
        """
        folds = make_folds(len(kept), sequential=sequential)
        scored: list[Scores] = []
        for number, (fold, others) in enumerate(zip(folds.groups, folds.complements(), strict=True), start=1):
            head, held_out = (
                self._detector.head(self.moments([kept[row] for row in others])),
                [kept[row] for row in fold],
            )
            scored.append(self._scores(head, held_out))
            if damaged is not None:
                damaged.score(held_out, head, self._parts.features)
            del head  # it would stay in memory while the next one is made
            progress("learning", number, len(folds.groups) + 1)
        order = np.argsort([row for fold in folds.groups for row in fold])
        return Scores(*(np.concatenate(part)[order] for part in zip(*scored, strict=True)))

    def moments(self, indices: list[int]) -> Moments:
        """The updated moments, from the old bundle and these parts."""
        moments = self._moments(indices)
        if self._old is None:
            return moments
        if self._kind == "mean":
            return Moments(self._old.count, moments.mean, self._old.scatter, self._old.squares)
        moments.add(self._old)
        return moments

    def _inliers(self) -> list[int]:
        """Parts that are nowhere very far from the median, which a few defects do not move as they would a mean.

        Rare good parts stay in: without them, the change of light is estimated less well (0.02 of image AUROC on
        tiles).
        """
        count = len(self._parts)
        sample = np.unique(np.linspace(0, count - 1, min(count, _MEDIAN_IMAGES)).round().astype(int)).tolist()
        features = np.concatenate(list(self._parts.features.batches(sample)))
        median = np.median(features, axis=0)
        spread = np.median(np.abs(features - median), axis=0).mean(axis=(1, 2)) + _EPSILON
        del features
        scaled = (
            np.square((batch - median) / spread[:, None, None]).mean(axis=1).max(axis=(1, 2))
            for batch in self._parts.features.batches(list(range(count)))
        )
        distances = np.concatenate(list(scaled))
        return [int(index) for index in np.flatnonzero(distances <= _MAX_DISTANCE_RATIO * np.median(distances))]

    def _moments(self, indices: list[int]) -> Moments:
        return self._parts.features.moments(indices, self._detector.vectors)

    def _scores(self, head: WhiteningHead, indices: list[int]) -> Scores:
        scored = [head.scores(batch) for batch in self._parts.features.batches(indices)]
        return Scores(np.concatenate([each.score for each in scored]), np.concatenate([each.map for each in scored]))


def mean_correlation(old: Moments, new: Moments) -> float | None:
    """Correlation of the spatial patterns of two products' features: 1 for the same product in any light.

    Per channel, the correlation over all locations of the old and the new mean; of the channels that differ more from
    location to location than from image to image, the median. A lamp or a lens acts everywhere alike and hardly
    changes such a pattern. (Measured with the filterbank: 0.97 to 1.00 after changes of light, blur and both, of
    flanges, hazelnuts, bottles, fruit and washers; at most 0.65 between any two of these.)

    Returns:
        None if fewer than three quarters of the channels have such a pattern: on a texture all locations are alike.
    """
    (old_pattern, old_variance), (new_pattern, new_variance) = _pattern(old), _pattern(new)
    old_power, new_power = (old_pattern**2).mean(axis=0), (new_pattern**2).mean(axis=0)
    varies = (old_power > 0) & (new_power > 0)
    patterned = varies & (
        (old_power > _MIN_PATTERN_RATIO * old_variance) | (new_power > _MIN_PATTERN_RATIO * new_variance)
    )
    if not varies.any() or patterned.sum() < _MIN_PATTERN_SHARE * varies.sum():
        return None
    covariance = (old_pattern * new_pattern).mean(axis=0)[patterned]
    return float(np.median(covariance / np.sqrt(old_power[patterned] * new_power[patterned])))


def _pattern(moments: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means relative to their mean over locations, (locations, d), and the mean variance per location, (d,)."""
    return moments.mean - moments.mean.mean(axis=0), _variances(moments).mean(axis=0)


def _variances(moments: Moments) -> NDArray[np.float64]:
    """(locations, d)."""
    variances: NDArray[np.float64] = np.einsum("lii->li", moments.scatter) / moments.degrees_of_freedom
    return variances


def _refuse_another_product(correlation: float | None) -> None:
    if correlation is not None and correlation < _MIN_CORRELATION:
        raise DatasetError(
            what=f"these parts are another product than the bundle's: their images agree to {max(correlation, 0):.0%}",
            remedy="check the camera and the production line; for another product use the mode teach",
        )


def _refuse_high_median(thresholds: float) -> None:
    """Raise DatasetError if the median score, in thresholds, is high even under the transported moments.

    (Measured: 0.5 to 1.1 after changes of light and blur; mostly 10 to 90 for another product.)
    """
    if not thresholds <= _MAX_MEDIAN_SCORE:
        raise DatasetError(
            what="these parts differ from good ones by more than another light or lens explains: half of them still "
            f"score over {thresholds:.0f} times the threshold",
            remedy="check the parts and the camera; for another product use the mode teach",
        )


def _refuse_same_defect(median_map: NDArray[np.float32]) -> None:
    """Raise DatasetError if most parts differ from the old images at one location, beyond a change of light.

    ``median_map`` is the median over all parts of the score map under the transported moments, (h, w). (Measured on
    seven sets: the highest location has 1.3 to 2.9 times the median after changes of light and blur; 3.5 to 12 times
    if all parts have a hole or a scratch at one location.)
    """
    row, column = np.unravel_index(int(median_map.argmax()), median_map.shape)
    if median_map.size > 1 and median_map[row, column] > _MAX_PEAK_RATIO * np.median(median_map):
        rows, columns = median_map.shape
        right, down = (column + 0.5) / columns, (row + 0.5) / rows
        raise DatasetError(
            what="most of these parts differ from good ones at one location, as if all had the same defect: "
            f"{right:.0%} from the left and {down:.0%} from the top of the inspected region",
            remedy="check the parts; if this is how they should be, use the mode teach",
        )


def _refuse_standstill(old: Moments, new: Moments) -> None:
    """Raise DatasetError if the parts vary by less than a tenth of what the old images did."""
    before, now = _variances(old), _variances(new)
    varies = before > 0
    ratio = float(np.sqrt(now[varies] / before[varies]).mean()) if varies.any() else 1.0
    if ratio < _MIN_SPREAD_RATIO:
        raise DatasetError(
            what=f"these parts hardly differ: by {ratio:.1%} of the spread of earlier good ones",
            remedy="let the production line run, so that different parts pass, and recalibrate again",
        )
