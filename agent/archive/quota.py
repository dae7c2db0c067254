"""How much room the archive has, and whose pictures give way. Pure but for `missing_on_disk`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1024 * 1024
SHARES = {Evaluation.NOT_OK: 0.5, Evaluation.OK: 0.3, Evaluation.NOT_DECIDABLE: 0.2}
"""Of the room, sure to each class; what one leaves unused the others may take."""
_KEEP_FREE_BYTES = 500 * MIB
_KEEP_FREE_SHARE = 0.02
_DAY_MS = 86_400_000
# A device whose clock was not set yet: such pictures are of no known age.
_CLOCKS_ARE_SET_MS = 1_577_836_800_000  # 2020


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be kept.

    Attributes:
        max_bytes: Of all pictures and their index.
        max_age_days: Older pictures go; 0 keeps them whatever their age.
    """

    max_bytes: int
    max_age_days: int = 0

    def too_old_ms(self, now_ms: int) -> tuple[int, int] | None:
        """First and last time of pictures that are too old; None where none can be."""
        last_ms = now_ms - self.max_age_days * _DAY_MS
        return (_CLOCKS_ARE_SET_MS, last_ms) if self.max_age_days and last_ms >= _CLOCKS_ARE_SET_MS else None


def furthest_over_share(used_bytes: Mapping[Evaluation, int]) -> Evaluation:
    """The class that takes the most in proportion to its share: when there is no more room, it is over that."""
    return max(SHARES, key=lambda evaluation: used_bytes.get(evaluation, 0) / SHARES[evaluation])


def missing_on_disk(directory: Path, size_bytes: int) -> int:
    """What must become free before so much may be written and enough of the disk is still free; 0 or less: nothing."""
    disk = shutil.disk_usage(directory)
    return size_bytes + int(min(_KEEP_FREE_BYTES, _KEEP_FREE_SHARE * disk.total)) - disk.free
