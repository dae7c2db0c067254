"""Good images with synthetic defects, and their scores under statistics that have not seen these images."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.detectors.feature_store import batch_images
from calibration.imaging.synthetic_defects import DIFFERENT, kind_and_share, picture_of, side_of
from calibration.statistics.leave_one_out import LeaveOneOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.detectors.feature_store import Features, FeatureStore
    from calibration.detectors.head import Scorer
    from calibration.imaging.preprocess import Image


class DamagedImages:
    """Changed copies of images, with one synthetic defect each.

    Args:
        store: Receives their features; entered already. None if each is added with its score.
    """

    def __init__(self, store: FeatureStore | None) -> None:
        self._store = store
        self._originals: list[int] = []
        self._numbers: list[int] = []
        self._pictures: dict[int, Image] = {}
        self._scores: list[float] = []

    def add(self, original: int, number: int, pictures: tuple[Image, Image], reduced: NDArray[np.float32]) -> None:
        """Add an image.

        Args:
            original: Row of the image without the defect among the features given to ``score``.
            number: Of the defect, see `synthetic_defects.kind_and_share`.
            pictures: The inspected region without and with it.
            reduced: Features, (d, h, w).
        """
        assert self._store is not None  # noqa: S101 - see there
        self._store.append(reduced)
        self._originals.append(original)
        self.add_scored(number, pictures, nan)

    def add_scored(self, number: int, pictures: tuple[Image, Image], score: float) -> None:
        """Add an image whose original no statistics have seen, with its score."""
        self._numbers.append(number)
        self._scores.append(score)
        if number < DIFFERENT:
            self._pictures[number] = picture_of(*pictures)

    def score(self, held_out: Sequence[int], scorer: Scorer, originals: Features) -> None:
        """Score the copies of the rows that are held out from a scorer."""
        assert self._store is not None  # noqa: S101 - see there
        rows = set(held_out)
        chosen = [index for index, original in enumerate(self._originals) if original in rows]
        size = batch_images(self._store.shape, max(1, len(chosen)))
        for start in range(0, len(chosen), size):
            batch = chosen[start : start + size]
            (reduced,) = self._store.batches(batch)
            if isinstance(scorer, LeaveOneOut):  # its statistics have seen the originals
                before = np.concatenate(list(originals.batches([self._originals[index] for index in batch])))
                scores = scorer.scores(reduced, before)
            else:
                scores = scorer.scores(reduced)
            for index, score in zip(batch, scores.score.tolist(), strict=True):
                self._scores[index] = score

    def arrays(self, region_px: float) -> dict[str, NDArray[Any]]:
        """Arrays for ``reference.npz``; ``region_px`` is the shorter side of the inspected region."""
        order = np.argsort(self._numbers)
        drawn = [kind_and_share(self._numbers[index]) for index in order]
        return {
            "defect_kinds": np.array([kind for kind, _ in drawn]),
            "defect_px": np.array([side_of(region_px, share) for _, share in drawn]),
            "defect_scores": np.array(self._scores)[order],
            "defect_pictures": np.stack([picture for _, picture in sorted(self._pictures.items())]),
        }
