"""How often the publisher speaks, and how long it waits before it knocks again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffLimits:
    """How fast.

    Attributes:
        window: Records that may be under way without an acknowledgement.
        records_per_s: Records published at most, after an outage, say: at full speed the publisher and the broker's
            answers take processor time from the inspection.
        health_every_s: Between two messages of ``health``.
        first_retry_s: Longest wait before the second attempt to connect; doubles with each attempt.
        longest_retry_s: Longest wait between any two attempts.
        refused_retry_s: Wait after the broker has said no: only a person can change that.
        jitter: Uniform in [0, 1): keeps a hall of stations from knocking at the same moment.
    """

    window: int = 100
    records_per_s: float = 1200.0
    health_every_s: float = 5.0
    first_retry_s: float = 1.0
    longest_retry_s: float = 30.0
    refused_retry_s: float = 60.0
    jitter: Callable[[], float] = random.random


DEFAULT_PACE = BackoffLimits()


class Backoff:
    """How long to wait before the next attempt: doubling, with jitter between a half and all of it."""

    def __init__(self, pace: BackoffLimits) -> None:
        self._pace = pace
        self._ceiling_s = pace.first_retry_s

    def next_s(self) -> float:
        """Seconds to wait now; the next time it is twice as long, up to the longest."""
        wait_s = self._ceiling_s * (1 + self._pace.jitter()) / 2
        self._ceiling_s = min(2 * self._ceiling_s, self._pace.longest_retry_s)
        return wait_s

    def note_connection(self, lasted_s: float) -> None:
        """Begin anew after a connection that was worth it; one that breaks at once must not be made every second."""
        if lasted_s >= self._pace.longest_retry_s:
            self._ceiling_s = self._pace.first_retry_s
