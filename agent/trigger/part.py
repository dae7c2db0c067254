"""A part that the line wants to hear about."""

from __future__ import annotations

import time
from typing import NamedTuple

from agent.clock import now_ms


class Part(NamedTuple):
    """One part, from its trigger to its result.

    Attributes:
        part_id: As the trigger named it; None when it did not.
        asked_at_ms: When it was triggered, wall clock, ms since 1970, UTC.
        asked_ns: The same on the monotonic clock of this machine.
    """

    part_id: str | None
    asked_at_ms: int
    asked_ns: int

    @classmethod
    def asked_now(cls, part_id: str | None) -> Part:
        """A part that is triggered in this moment."""
        return cls(part_id, now_ms(), time.monotonic_ns())
