"""Whether the first hundred parts that a bundle inspects score like the good images of its calibration.

Where they do not, calibration saw another light or material, and its threshold promises nothing here. Slow drift needs
a day to be proved; this asks a coarser question once: does half of the line lie beyond nine in ten good images?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agent.drift.reference_ranks import effective_count
from agent.drift.sudden_change import TOLERANCE
from calibration.plain_text import rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.messages.records import Payload

    Float64: TypeAlias = NDArray[np.float64]

PARTS = 100
_TAIL = 0.1
_LEAST_IMAGES = 10
"""Fewer independent good images have no ninth in ten."""
_COMMAND = "shiftwatch-agent recalibrate --mode"


@dataclass(frozen=True, slots=True)
class FirstPartsFinding:
    """How a hundred parts differ from calibration.

    Attributes:
        now: Their median score, of OK and NotOK ones; up to 40 % defective ones do not bring it beyond the limit.
        calibrated: Median score of the good images.
        look: ``darker`` or the like, if half of them are beyond all good images in this; None otherwise.
    """

    now: float
    calibrated: float
    look: str | None

    @property
    def ratio(self) -> float:
        """Their score as a multiple of the calibrated one."""
        return self.now / self.calibrated

    @property
    def words(self) -> str:
        """The difference in words."""
        look = "" if self.look is None else f"are {self.look} and "
        return f"the first {PARTS} parts {look}score {rounded(self.ratio, 2)} times as high as calibrated"

    @property
    def remedy(self) -> str:
        """What to do. Lower scores need a lower threshold; higher ones, or another look, need other statistics."""
        if self.ratio < 1.0 and self.look is None:
            return f"check that this is the calibrated product; if so, with good parts: {_COMMAND} threshold"
        return (
            "check lamp, lens and product; if they are to stay like this, with good parts: "
            f"{_COMMAND} full (fewer than a hundred parts: mean; if the detector takes neither: threshold)"
        )

    def payload(self) -> Payload:
        """Content of ``firstParts`` in ``drift`` of ``health``."""
        return {"parts": PARTS, "now": self.now, "calibrated": self.calibrated, "look": self.look}


class FirstParts:
    """Watches the first hundred parts of one bundle with one threshold; after a finding each next hundred, too.

    Args:
        scores: Held-out scores of the good images.
        looks: Appearance of the good images by its name, each (images,), in the order of ``appearance``.
        words: For each appearance, what less and more of it are called.
        sequential: The images are successive frames of a video.

    Attributes:
        finding: None while nothing is found.
        is_over: Nothing is looked at any more.
    """

    def __init__(
        self, scores: Float64, looks: Mapping[str, Float64], words: Mapping[str, tuple[str, str]], *, sequential: bool
    ) -> None:
        self.finding: FirstPartsFinding | None = None
        self._calibrated = float(np.median(scores))
        self._limits = tuple(np.quantile(scores, (_TAIL, 1.0 - _TAIL), method="weibull"))
        self._looks = [(good.min() - TOLERANCE, good.max() + TOLERANCE, *words[name]) for name, good in looks.items()]
        self._parts: list[tuple[float, ...]] = []
        self.is_over = self._calibrated <= 0.0 or effective_count(scores, sequential=sequential) < _LEAST_IMAGES

    def add(self, score: float, looks: tuple[float, ...]) -> None:
        """Add a part, whatever its verdict."""
        self._parts.append((score, *looks))
        if len(self._parts) < PARTS:
            return
        now, *seen = np.median(np.array(self._parts), axis=0)
        self._parts = []
        low, high = self._limits
        if low <= now <= high:
            self.finding, self.is_over = None, True
        elif self.finding is None:
            self.finding = FirstPartsFinding(float(now), self._calibrated, self._look(seen))

    def _look(self, seen: list[float]) -> str | None:
        for (least, most, less, more), value in zip(self._looks, seen, strict=False):
            if not least <= value <= most:
                return less if value < least else more
        return None
