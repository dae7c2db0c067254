"""Rates of publishing, and the time to wait before the next attempt to connect."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffLimits:
    """Limits of rates and waiting times.

    Attributes:
        window: Records that may be sent without an acknowledgement.
        records_per_s: Highest rate of records, for example after an outage: at full speed the publisher and the
            broker's answers take processor time from the inspection.
        health_every_s: Interval of the messages ``health``.
        first_retry_s: Longest wait before the second attempt to connect; doubles with each attempt.
        longest_retry_s: Longest wait between any two attempts.
        refused_retry_s: Wait after the broker has refused, which only a person can change.
        jitter: Uniform in [0, 1): keeps many stations from connecting at the same moment.
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
    """The wait before the next attempt: it doubles, with jitter between half and all of it."""

    def __init__(self, pace: BackoffLimits) -> None:
        self._pace = pace
        self._ceiling_s = pace.first_retry_s

    def next_s(self) -> float:
        """Seconds to wait now; the next wait is twice as long, up to the longest."""
        wait_s = self._ceiling_s * (1 + self._pace.jitter()) / 2
        self._ceiling_s = min(2 * self._ceiling_s, self._pace.longest_retry_s)
        return wait_s

    def note_connection(self, lasted_s: float) -> None:
        """Start again with the first wait after a long connection; one that breaks at once must not be retried fast."""
        if lasted_s >= self._pace.longest_retry_s:
            self._ceiling_s = self._pace.first_retry_s
