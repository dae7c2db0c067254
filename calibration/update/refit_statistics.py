"""What old statistics and those of collected parts make together, and what the parts score under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from calibration.detectors.cross_validation import make_folds
from calibration.errors import DatasetError
from calibration.statistics.moments import Moments
from calibration.statistics.optimal_transport import transport
from calibration.statistics.outliers import outlier_indices
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.detectors.head import WhiteningHead
    from calibration.progress import Progress
    from calibration.update.additive import AdditiveDetector
    from calibration.update.part_store import PartStore


Statistics: TypeAlias = Literal["mean", "full", "teach"]

_STANDSTILL = 0.1
_PLACED = 0.5
_MOSTLY = 0.75
_SAME_PRODUCT = 0.8
_UNEXPLAINED = 3.0
_ONE_PLACE = 5.0
_MEDIAN_OF = 200
_FAR = 30.0
_SMALLEST = 1e-6


class Refit:
    """Parts of a collection, and what becomes of the old statistics with them.

    Only one set of statistics is made at a time: on a device each takes as much memory as the old one.

    Args:
        collection: With features.
        method: Of the bundle.
        kind: ``mean``: the parts' means, the old covariances; ``full``: the old statistics under new conditions, and
            the parts added.
        old: Moments of the old bundle, of the same features; None learns from the parts alone, whatever the kind.
        old_weight: What one of its images counts against a part, in ``full``.

    Raises:
        DatasetError: The parts show another product, or hardly differ (the line stands still).
    """

    def __init__(
        self, collection: PartStore, method: AdditiveDetector, kind: Statistics, old: Moments | None, old_weight: float
    ) -> None:
        self._collection = collection
        self._method = method
        self._kind = kind
        self._old: Moments | None = None
        self._seen_anew: Moments | None = None
        if old is None:
            return
        ordinary = self._moments(self._ordinary())
        _refuse_another_product(mean_correlation(old, ordinary))
        _refuse_standstill(old, ordinary)
        self._seen_anew = transport(old, ordinary)
        if kind == "mean":
            self._old = old
        elif old_weight > 0:
            self._old = self._seen_anew = self._seen_anew.weighted(old_weight)

    def suspects(self, threshold: float) -> list[int]:
        """Parts that are far from the others, the farthest first, under statistics that no single part has a say in.

        Args:
            threshold: Of the old bundle.

        Raises:
            DatasetError: Most parts differ more than another light explains, or at one place alone.
        """
        everyone = list(range(len(self._collection)))
        if self._seen_anew is None:
            scores = self.held_out(everyone, sequential=False, progress=lambda *_: None)
        else:
            scores = self._scores(self._method.head(self._seen_anew), everyone)
            _refuse_unexplained(float(np.median(scores.score)) / threshold)
            _refuse_same_defect(np.median(scores.map, axis=0))
        self._seen_anew = None  # not needed any more
        return outlier_indices(scores.score.astype(np.float64))

    def held_out(self, kept: list[int], *, sequential: bool, progress: Progress) -> Scores:
        """What parts score under statistics without them and their fold, in the order of ``kept``."""
        folds = make_folds(len(kept), sequential=sequential)
        score = np.empty(len(kept), np.float32)
        maps: dict[int, NDArray[np.float32]] = {}
        for number, (fold, others) in enumerate(zip(folds.groups, folds.complements(), strict=True), start=1):
            # No name for the head: the last one would stay while the next one is made.
            scored = self._scores(
                self._method.head(self.statistics([kept[row] for row in others])), [kept[row] for row in fold]
            )
            score[list(fold)] = scored.score
            maps.update(zip(fold, scored.map, strict=True))
            progress("learning", number, len(folds.groups) + 1)
        return Scores(score, np.stack([maps[row] for row in range(len(kept))]))

    def statistics(self, parts: list[int]) -> Moments:
        """With some of the parts."""
        moments = self._moments(parts)
        if self._old is None:
            return moments
        if self._kind == "mean":
            return Moments(self._old.count, moments.mean, self._old.scatter, self._old.squares)
        moments.add(self._old)
        return moments

    def _ordinary(self) -> list[int]:
        """Parts that nowhere lie very far from the median of all: a few defects would move a mean, but not a median.

        Rare good parts stay: without them the light of all is known less well (by 0.02 of image AUROC on tiles).
        """
        count = len(self._collection)
        sample = np.unique(np.linspace(0, count - 1, min(count, _MEDIAN_OF)).round().astype(int)).tolist()
        known = np.concatenate(list(self._collection.features.batches(sample)))
        median = np.median(known, axis=0)
        spread = np.median(np.abs(known - median), axis=0).mean(axis=(1, 2)) + _SMALLEST
        del known
        scaled = (
            np.square((batch - median) / spread[:, None, None]).mean(axis=1).max(axis=(1, 2))
            for batch in self._collection.features.batches(list(range(count)))
        )
        distances = np.concatenate(list(scaled))
        return [int(index) for index in np.flatnonzero(distances <= _FAR * np.median(distances))]

    def _moments(self, parts: list[int]) -> Moments:
        return self._collection.features.moments(parts, self._method.vectors)

    def _scores(self, head: WhiteningHead, parts: list[int]) -> Scores:
        scored = [head.scores(batch) for batch in self._collection.features.batches(parts)]
        return Scores(np.concatenate([each.score for each in scored]), np.concatenate([each.map for each in scored]))


def mean_correlation(old: Moments, new: Moments) -> float | None:
    """Whether what has its place in the picture still has it: 1 for the same product in any light, near 0 for another.

    The correlation, over all places, of the old and the new mean of a channel; of those channels that differ more from
    place to place than from image to image, the median. A lamp or a lens changes such a pattern hardly, since it does
    so everywhere alike. (Measured with the filterbank: 0.97 to 1.00 after changes of light, blur and both, of flanges,
    hazelnuts, bottles, fruit and washers; 0.65 at most between any two of these.)

    Returns:
        None where fewer than three quarters of the channels are such: on a texture every place looks alike.
    """
    (before, within_before), (now, within_now) = (_patterns(each) for each in (old, new))
    power = (before**2).mean(axis=0), (now**2).mean(axis=0)
    varies = (power[0] > 0) & (power[1] > 0)
    placed = varies & ((power[0] > _PLACED * within_before) | (power[1] > _PLACED * within_now))
    if not varies.any() or placed.sum() < _MOSTLY * varies.sum():
        return None
    correlation = (before * now).mean(axis=0)[placed] / np.sqrt(power[0][placed] * power[1][placed])
    return float(np.median(correlation))


def _patterns(moments: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How each place differs from the others, (places, d); and the mean variance of images at one place, (d,)."""
    variances = np.einsum("lii->li", moments.scatter) / moments.degrees_of_freedom
    return moments.mean - moments.mean.mean(axis=0), variances.mean(axis=0)


def _refuse_another_product(found: float | None) -> None:
    if found is not None and found < _SAME_PRODUCT:
        raise DatasetError(
            what=f"these parts are another product than the bundle knows: their pictures agree to {max(found, 0):.0%}",
            remedy="look at the camera and at the line; to teach another product use the mode teach",
        )


def _refuse_unexplained(times: float) -> None:
    """Raise DatasetError where half of the parts are far beyond the threshold, after what light explains.

    (Measured: 0.5 to 1.1 times after changes of light and blur; mostly 10 to 90 times for another product.)
    """
    if not times <= _UNEXPLAINED:
        raise DatasetError(
            what="these parts differ from good ones by more than another light or lens explains: half of them score "
            f"over {times:.0f} times the threshold even so",
            remedy="look at the parts and the camera; for another product use the mode teach",
        )


def _refuse_same_defect(typical: NDArray[np.float32]) -> None:
    """Raise DatasetError where most parts differ from the old images at one place, after what light explains.

    (Measured: the highest place has 1.3 to 2.9 times the median of all after changes of light and blur, of seven sets;
    3.5 to 12 times where all parts have a hole or a scratch at one place.)

    Args:
        typical: Median over all parts of the score map under the old statistics, seen anew, (h, w).
    """
    row, column = np.unravel_index(int(typical.argmax()), typical.shape)
    if typical.size > 1 and typical[row, column] > _ONE_PLACE * np.median(typical):
        rows, columns = typical.shape
        right, down = (column + 0.5) / columns, (row + 0.5) / rows
        raise DatasetError(
            what="most of these parts differ from good ones at one place, as if all had the same defect: "
            f"{right:.0%} from the left and {down:.0%} from the top of what is inspected",
            remedy="look at the parts; if they are meant to be so from now on, use the mode teach",
        )


def _refuse_standstill(old: Moments, new: Moments) -> None:
    """Raise DatasetError where most channels vary by less than a tenth of what they did."""
    before, now = (np.einsum("lii->li", each.scatter) / each.degrees_of_freedom for each in (old, new))
    ratio = float(np.sqrt(now[before > 0] / before[before > 0]).mean()) if (before > 0).any() else 1.0
    if ratio < _STANDSTILL:
        raise DatasetError(
            what=f"these parts hardly differ: by {ratio:.1%} of what good ones did before",
            remedy="let the line run, so that different parts come by, and recalibrate again",
        )
