"""What the archive keeps of one result, and which results have their image kept."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from agent.messages.records import Evaluation, ResultCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.messages.records import Result
    from calibration.imaging.heatmap import Array
    from calibration.imaging.preprocess import Image, Region

_SAME_CAUSE_EVERY_S = 60.0
_DICE = random.SystemRandom()


class Heat(NamedTuple):
    """A score map for a region of the frame; see `calibration.imaging.heatmap.overlay`."""

    region: Region | None
    score_map: Array
    threshold: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is kept of one result.

    Attributes:
        image: The frame, (rows, columns, 3), uint8, BGR; must not be written to any more.
        heat: Score maps for the overlay; empty where there is no defect.
        region: Inspected part of the frame, of several zones the decisive one; None is the whole frame.
        result: The result; its frame has a number.
    """

    image: Image
    heat: tuple[Heat, ...]
    region: Region | None
    result: Result

    @property
    def reference(self) -> str:
        """Path of the frame in the archive: ``YYYY-MM-DD/HHMMSS-mmm_seq.png``, UTC."""
        created_at_ms = self.result.created_at_ms
        when = datetime.fromtimestamp(created_at_ms // 1000, tz=timezone.utc)
        return f"{when:%Y-%m-%d/%H%M%S}-{created_at_ms % 1000:03d}_{self.result.seq}.png"


class Selection:
    """Selects results to archive: every NotOK, a NotDecidable once a minute per cause, one OK in ``ok_every``.

    Not thread-safe: the loop's thread calls it.

    Args:
        ok_every: One OK result in this many is kept; 0 keeps none.
        clock_s: Monotonic clock.
    """

    def __init__(self, ok_every: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._ok_every = ok_every
        self._clock_s = clock_s
        self._ok_to_go = self._gap()
        self._undecided_at_s: dict[ResultCode, float] = {}

    def wants(self, evaluation: Evaluation, code: ResultCode) -> bool:
        """Whether to keep the image of this result; each call counts as a result."""
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
        # Random, half to one and a half times: a fixed step would keep only one cavity of a mould with four.
        return _DICE.randint((self._ok_every + 1) // 2, self._ok_every + self._ok_every // 2)
