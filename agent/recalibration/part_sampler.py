"""Where the loop hands parts to the worker; a part that cannot be taken at once is left out, and counted."""

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
_BUSY = "not taken, the learning process was busy"


class PartSampler:
    """Gives parts to the worker until it has given enough.

    Args:
        give: Takes a part without waiting; returns whether it did.
        parts: Number of parts to give.
        zone: Name of the zone that is recalibrated.
        other_product: Also give frames that the active bundle finds blocked, moved or blurred.

    Attributes:
        given: Number of parts given.
        missed: Parts that were not given, by cause.
        last_s: When the last part was given, or the sampler was made; monotonic.
    """

    def __init__(self, give: Callable[[Message], bool], parts: int, zone: str, *, other_product: bool = False) -> None:
        self._give = give
        self._zone = zone
        self._codes = {ResultCode.NONE, *(_ABOUT_THE_PRODUCT if other_product else ())}
        self.parts = parts
        self.given = 0
        self.missed: Counter[str] = Counter()
        self.last_s = time.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether enough parts were given."""
        return self.given >= self.parts

    def offer(self, part: PartInspection) -> None:
        """Take a part from the loop, whatever its verdict, if its frame can be trusted."""
        if self.is_full:
            return
        zone = next(each for each in part.zones if each.frame_score.recipe.zone == self._zone)
        if zone.code not in self._codes or zone.frame_score.prepared is None:
            self.missed[f"frames {zone.code.name.lower().replace('_', ' ')}"] += 1
        elif not self._give(_message(part.result_id, zone, zone.frame_score.prepared)):
            self.missed[_BUSY] += 1
        else:
            self.given += 1
            self.last_s = time.monotonic()

    def causes(self) -> str:
        """Why parts were missed, the most frequent cause first."""
        return ", ".join(f"{count} {cause}" for cause, count in self.missed.most_common())


def _message(result_id: str, zone: ZoneVerdict, prepared: Image) -> Message:
    evaluation = zone.verdict.evaluation
    is_bad = None if evaluation is Evaluation.NOT_DECIDABLE else evaluation is Evaluation.NOT_OK
    header = {"kind": "part", "name": result_id, "shape": prepared.shape, "notOk": is_bad}
    return Message(header, prepared.tobytes())
