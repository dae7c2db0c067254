"""How much space the archive may use, and which images are removed first."""

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
"""Share of the space that is reserved for each class; the others may use what one leaves."""
_KEEP_FREE_BYTES = 500 * MIB
_KEEP_FREE_SHARE = 0.02
_DAY_MS = 86_400_000
# Images with an earlier time have an unknown age: the clock of the device was not set.
_CLOCKS_ARE_SET_MS = 1_577_836_800_000  # 2020


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the archive.

    Attributes:
        max_bytes: Size of all images and their index.
        max_age_days: Older images are removed; 0 keeps images of any age.
    """

    max_bytes: int
    max_age_days: int = 0

    def too_old_ms(self, now_ms: int) -> tuple[int, int] | None:
        """First and last time of images that are too old; None if none can be."""
        last_ms = now_ms - self.max_age_days * _DAY_MS
        return (_CLOCKS_ARE_SET_MS, last_ms) if self.max_age_days and last_ms >= _CLOCKS_ARE_SET_MS else None


def furthest_over_share(used_bytes: Mapping[Evaluation, int]) -> Evaluation:
    """The class that uses the most in proportion to its share."""
    return max(SHARES, key=lambda evaluation: used_bytes.get(evaluation, 0) / SHARES[evaluation])


def missing_on_disk(directory: Path, size_bytes: int) -> int:
    """Space to free before a file of this size leaves enough of the disk free; 0 or less if none is needed."""
    disk = shutil.disk_usage(directory)
    return size_bytes + int(min(_KEEP_FREE_BYTES, _KEEP_FREE_SHARE * disk.total)) - disk.free
