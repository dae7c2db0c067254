"""What is kept of one result, and which results have a picture kept."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from agent.messages.records import Evaluation, ResultCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.messages.records import DefectRegion, ZoneResult
    from calibration.imaging.heatmap import Array
    from calibration.imaging.preprocess import Image, Region

_SAME_CAUSE_EVERY_S = 60.0
_DICE = random.SystemRandom()


class Heat(NamedTuple):
    """A score map, to be laid over a region of the frame; see ``overlay``."""

    region: Region | None
    score_map: Array
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is kept of one result.

    Attributes:
        image: (rows, columns, 3), uint8, BGR; must not be written to any more.
        heat: What shall lie beside the frame as a heat map; nothing where there is no defect.
        region: Part of the frame that was inspected, of several zones the decisive one; None is the whole frame.
        score: NaN where there is none.
        zones: As of `Result`.
    """

    image: Image
    heat: tuple[Heat, ...]
    region: Region | None
    threshold: float
    score: float
    result_id: str
    part_id: str | None
    seq: int
    created_at_ms: int
    evaluation: Evaluation
    code: ResultCode = ResultCode.NONE
    regions: tuple[DefectRegion, ...] = ()
    zones: Mapping[str, ZoneResult] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """Path of the frame in the archive: ``YYYY-MM-DD/HHMMSS-mmm_seq.png``, UTC."""
        when = datetime.fromtimestamp(self.created_at_ms // 1000, tz=timezone.utc)
        return f"{when:%Y-%m-%d/%H%M%S}-{self.created_at_ms % 1000:03d}_{self.seq}.png"


class Selection:
    """Which results have a picture kept: NotOK all, NotDecidable one a minute of each cause, OK one in so many.

    Not thread-safe: it is the loop's.

    Args:
        ok_every: One OK result in so many; 0 none.
        clock_s: Monotonic.
    """

    def __init__(self, ok_every: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._ok_every = ok_every
        self._clock_s = clock_s
        self._ok_to_go = self._gap()
        self._undecided_at_s: dict[ResultCode, float] = {}

    def wants(self, evaluation: Evaluation, code: ResultCode) -> bool:
        """Whether this result shall have a picture; each call counts as a result."""
        if evaluation is Evaluation.OK:
            return self._wants_ok()
        if evaluation is Evaluation.NOT_DECIDABLE:
            return self._wants_undecided(code)
        return evaluation is Evaluation.NOT_OK

    def _wants_ok(self) -> bool:
        self._ok_to_go -= 1
        if self._ok_every == 0 or self._ok_to_go > 0:
            return False
        self._ok_to_go = self._gap()
        return True

    def _wants_undecided(self, code: ResultCode) -> bool:
        now_s = self._clock_s()
        if now_s - self._undecided_at_s.get(code, float("-inf")) < _SAME_CAUSE_EVERY_S:
            return False
        self._undecided_at_s[code] = now_s
        return True

    def _gap(self) -> int:
        # Half to one and a half times as many: a fixed step would show one cavity of a mould with four only.
        return _DICE.randint((self._ok_every + 1) // 2, self._ok_every + self._ok_every // 2)
