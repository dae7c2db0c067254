"""What old statistics and those of collected parts make together, and what the parts score under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from calibration.detectors.partial import all_together, by_location
from calibration.errors import DatasetError
from calibration.head import Scores
from calibration.held_out import folds_of
from calibration.moments import Moments
from calibration.transport import transported

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.collection import Collection
    from calibration.head import WhiteningHead
    from calibration.merging import Learner

    Progress: TypeAlias = Callable[[str, int, int], None]

Statistics: TypeAlias = Literal["mean", "full", "teach"]

_STANDSTILL = 0.1


class Lesson:
    """Parts of a collection, and what becomes of the old statistics with them.

    Only one set of statistics is made at a time: on a device each takes as much memory as the old one.

    Args:
        collection: With features.
        kind: ``mean``: the parts' means, the old covariances; ``full``: the old statistics under new conditions, and
            the parts added; ``teach``: the parts alone.
        old: Moments of the old bundle.
        old_weight: What one of its images counts against a part, in ``full``.
    """

    def __init__(self, collection: Collection, kind: Statistics, old: Moments, old_weight: float) -> None:
        self._collection = collection
        self._places = len(old.mean)
        self._kind: Statistics = "teach" if kind == "full" and old_weight == 0 else kind
        everyone = list(range(len(collection)))
        if self._kind != "teach":
            of_all = self._moments(everyone)
            _refuse_standstill(old, of_all)
            if self._kind == "full":
                old = transported(old, of_all).weighted(old_weight)
            else:
                old = Moments(old.count, of_all.mean, old.scatter, old.squares)
        self._old = old

    def suspects(self, method: Learner, suspicious: Callable[[NDArray[np.float64]], list[int]]) -> list[int]:
        """Parts that are far from the others, the farthest first, under statistics that no single part has a say in."""
        everyone = list(range(len(self._collection)))
        if self._kind == "teach":
            scores = self.held_out(method, everyone, sequential=False, progress=lambda *_: None).score
        else:
            scores = self._scores(method.head(self._old), everyone).score
        return suspicious(scores.astype(np.float64))

    def held_out(self, method: Learner, kept: list[int], *, sequential: bool, progress: Progress) -> Scores:
        """What parts score under statistics without them and their fold, in the order of ``kept``."""
        folds = folds_of(len(kept), sequential=sequential)
        score = np.empty(len(kept), np.float32)
        maps: dict[int, NDArray[np.float32]] = {}
        for number, (fold, others) in enumerate(zip(folds.parts, folds.without_each(), strict=True), start=1):
            # No name for the head: the last one would stay while the next one is made.
            scored = self._scores(
                method.head(self.statistics([kept[row] for row in others])), [kept[row] for row in fold]
            )
            score[list(fold)] = scored.score
            maps.update(zip(fold, scored.map, strict=True))
            progress("learning", number, len(folds.parts) + 1)
        return Scores(score, np.stack([maps[row] for row in range(len(kept))]))

    def statistics(self, parts: list[int]) -> Moments:
        """With some of the parts."""
        moments = self._moments(parts)
        if self._kind == "mean":
            return Moments(self._old.count, moments.mean, self._old.scatter, self._old.squares)
        if self._kind == "full":
            moments.add(self._old)
        return moments

    def _moments(self, parts: list[int]) -> Moments:
        moments: Moments | None = None
        for batch in self._collection.features.batches(parts):
            vectors = all_together(batch) if self._places == 1 else by_location(batch)
            if moments is None:
                moments = Moments.empty(len(vectors), vectors.shape[2])
            moments.update(vectors)
        assert moments is not None  # noqa: S101 - there are parts
        return moments

    def _scores(self, head: WhiteningHead, parts: list[int]) -> Scores:
        scored = [head.scores(batch) for batch in self._collection.features.batches(parts)]
        return Scores(np.concatenate([each.score for each in scored]), np.concatenate([each.map for each in scored]))


def _refuse_standstill(old: Moments, new: Moments) -> None:
    """Raise DatasetError where most channels vary by less than a tenth of what they did."""
    before, now = (np.einsum("lii->li", each.scatter) / each.freedom for each in (old, new))
    ratio = float(np.sqrt(now[before > 0] / before[before > 0]).mean()) if (before > 0).any() else 1.0
    if ratio < _STANDSTILL:
        raise DatasetError(
            what=f"these parts hardly differ: by {ratio:.1%} of what good ones did before",
            remedy="let the line run, so that different parts come by, and recalibrate again",
        )
