"""Where the loop hands over parts: a part that cannot be taken at once is not taken, and counted."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from agent.messages.records import Evaluation, ResultCode
from agent.recalibration.ipc import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.inspection.score import PartInspection, ZoneVerdict
    from calibration.imaging.preprocess import Image

_ABOUT_THE_PRODUCT = (ResultCode.BLOCKED, ResultCode.MOVED, ResultCode.BLURRED)
BUSY = "not taken, the learning process was busy"


class PartSampler:
    """Open until it has given what is wanted.

    Args:
        give: Takes a part without waiting; whether it did.
        wanted: So many parts.
        zone: Which of the part's zones it gives, by name.
        other_product: Also what looks like none of the bundle's.

    Attributes:
        wanted: So many.
        given: So many were taken.
        missed: Those that were not, by cause.
        last_s: When the last one was taken, or the tap was opened; monotonic.
    """

    def __init__(self, give: Callable[[Message], bool], wanted: int, zone: str, *, other_product: bool = False) -> None:
        self._give = give
        self._zone = zone
        self._taken = {ResultCode.NONE, *(_ABOUT_THE_PRODUCT if other_product else ())}
        self.wanted = wanted
        self.given = 0
        self.missed: Counter[str] = Counter()
        self.last_s = time.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether it has given what is wanted."""
        return self.given >= self.wanted

    def offer(self, seen: PartInspection) -> None:
        """Called by the loop with each part: whatever its verdict, if the frame could be trusted."""
        if self.is_full:
            return
        zone = next(each for each in seen.zones if each.view.recipe.zone == self._zone)
        if zone.code not in self._taken or zone.view.prepared is None:
            self.missed[f"frames {zone.code.name.lower().replace('_', ' ')}"] += 1
        elif not self._give(_part(seen.result_id, zone, zone.view.prepared)):
            self.missed[BUSY] += 1
        else:
            self.given += 1
            self.last_s = time.monotonic()

    def causes(self) -> str:
        """Why parts were missed, the most frequent cause first."""
        return ", ".join(f"{count} {cause}" for cause, count in self.missed.most_common())


def _part(result_id: str, zone: ZoneVerdict, prepared: Image) -> Message:
    evaluation = zone.verdict.evaluation
    is_bad = None if evaluation is Evaluation.NOT_DECIDABLE else evaluation is Evaluation.NOT_OK
    header = {"kind": "part", "name": result_id, "shape": prepared.shape, "notOk": is_bad}
    return Message(header, prepared.tobytes())
