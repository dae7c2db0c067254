"""A part, as the line or the camera presents it."""

from __future__ import annotations

import time
from typing import NamedTuple

from agent.clock import now_ms


class Part(NamedTuple):
    """One part, from its trigger to its result.

    Attributes:
        part_id: Its name in the trigger; None without one.
        asked_at_ms: Time of the trigger, wall clock, ms since 1970, UTC.
        asked_ns: The same on the monotonic clock of this machine.
        speed_px_s: Of a part that passes on a belt, pixels a second; None of others.
    """

    part_id: str | None
    asked_at_ms: int
    asked_ns: int
    speed_px_s: float | None = None

    @classmethod
    def asked_now(cls, part_id: str | None, ago_ms: int = 0) -> Part:
        """A part that is triggered now, or was ``ago_ms`` before."""
        return cls(part_id, now_ms() - ago_ms, time.monotonic_ns() - ago_ms * 1_000_000)
