"""What a bundle says about pictures marked as defects, and the threshold that would find those that it misses."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, NamedTuple

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.plain_text import rounded
from calibration.statistics.threshold import share_above

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image

_MOST_REJECTED = 0.5
_BELOW = 0.99  # of the lowest score that is to be found: another engine rounds differently
_LEAST_RATE = 1e-6


class ThresholdProposal(NamedTuple):
    """A threshold that would find more of the marked defects.

    Attributes:
        threshold: Three digits.
        instead_of: The bundle's.
        found: Number of marked defects above it.
        marked: Number of all marked defects.
        false_rejects: Share of good parts above it.
        false_rejects_now: Share of good parts above the bundle's.
    """

    threshold: float
    instead_of: float
    found: int
    marked: int
    false_rejects: float
    false_rejects_now: float

    @property
    def words(self) -> str:
        """The proposal and its cost, for people."""
        return (
            f"threshold {self.threshold:,g} instead of {rounded(self.instead_of, 4)} would find {self.found} of the "
            f"{self.marked} marked defects and reject about 1 good part in {_one_in(self.false_rejects)} instead of "
            f"1 in {_one_in(self.false_rejects_now)}"
        )


@dataclass(frozen=True, slots=True)
class MarkedDefects:
    """Scores of the marked pictures under one bundle.

    Attributes:
        scores: One for each picture.
        threshold: The threshold that holds for this bundle.
        good_scores: Held-out scores of its good images.
    """

    scores: tuple[float, ...]
    threshold: float
    good_scores: NDArray[np.float64]

    @property
    def are_found(self) -> tuple[bool, ...]:
        """Whether each picture is NotOK."""
        return tuple(not score <= self.threshold for score in self.scores)

    @property
    def found(self) -> int:
        """Number of them that are NotOK."""
        return sum(self.are_found)

    @property
    def proposal(self) -> ThresholdProposal | None:
        """The threshold that finds them all, or as many as it can without rejecting half of the good parts.

        None if it would find no more than the present one.
        """
        missed = sorted(score for score in self.scores if score <= self.threshold and score > 0.0)
        for lowest in missed:
            threshold = _three_digits_below(_BELOW * lowest)
            false_rejects = share_above(self.good_scores, threshold)
            if false_rejects <= _MOST_REJECTED:
                return ThresholdProposal(
                    threshold,
                    self.threshold,
                    sum(not score <= threshold for score in self.scores),
                    len(self.scores),
                    false_rejects,
                    share_above(self.good_scores, self.threshold),
                )
        return None


def score_marked(bundle: Bundle, frames: Sequence[Image], threshold: float, threads: int) -> MarkedDefects:
    """Score network inputs of marked pictures.

    Args:
        bundle: The bundle.
        frames: The network inputs.
        threshold: The threshold that holds for it.
        threads: Threads of the network.
    """
    good_scores = bundle.reference()["good_scores"]
    if not frames:
        return MarkedDefects((), threshold, good_scores)
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        return MarkedDefects(tuple(engine(frame).score for frame in frames), threshold, good_scores)


def _three_digits_below(value: float) -> float:
    digit = 10.0 ** (floor(log10(value)) - 2)
    return float(f"{floor(value / digit) * digit:.3g}")


def _one_in(rate: float) -> str:
    return rounded(1 / max(rate, _LEAST_RATE), 2)
