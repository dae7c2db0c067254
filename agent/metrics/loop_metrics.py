"""Figures of the inspection loop: frame rate, latencies by stage, time since the last result."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from typing import TYPE_CHECKING

import numpy as np

from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
_REMEMBERED = 512
_RATE_WINDOW_S = 5.0
_SAMPLE_EVERY_S = 0.25


class Latencies:
    """The last durations of one stage, in milliseconds; one thread writes, others may read.

    Attributes:
        counts: Durations since the start in each of `BUCKETS_MS` (upper bounds, inclusive), then above.
        sum_ms: Sum of all durations since the start.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_MS) + 1)
        self.sum_ms = 0.0
        self._ring = np.zeros(_REMEMBERED)
        self._count = 0

    def add(self, duration_ms: float) -> None:
        """Add a duration."""
        self._ring[self._count % _REMEMBERED] = duration_ms
        self._count += 1
        self.counts[bisect_left(BUCKETS_MS, duration_ms)] += 1
        self.sum_ms += duration_ms

    def percentile(self, share: float) -> float:
        """A percentile (0 to 100) of the latest durations; 0 before the first."""
        known = self._ring[: min(self._count, _REMEMBERED)]
        return round(float(np.percentile(known, share)), 3) if known.size else 0.0


class LoopMetrics:
    """Written by the inspection loop, read by the publisher.

    Args:
        clock_s: Monotonic clock.

    Attributes:
        results: Parts with a frame, each with a result.
        missed: Parts without one; each has a result, too.
        combined: Frames of these parts beyond the first of each.
        verdicts: Number of each verdict.
        fault: Why the last frame could not be inspected; None if it could.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.results = 0
        self.missed = 0
        self.combined = 0
        self.verdicts: Counter[Evaluation] = Counter()
        self.fault: str | None = None
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._stages: dict[str, Latencies] = {}
        self._finished_s = np.full(_REMEMBERED, -np.inf)
        self._captured: deque[tuple[float, int]] = deque([(self._began_s, 0)])

    def note(
        self,
        durations_ms: Mapping[str, float],
        verdict: Evaluation = Evaluation.UNDEFINED,
        fault: str | None = None,
        frames: int = 1,
    ) -> None:
        """Count a part: its durations by stage, verdict, fault if it could not be inspected, and number of frames."""
        self.verdicts[verdict] += 1
        self.combined += frames - 1
        self.fault = fault
        for stage, duration_ms in durations_ms.items():
            if stage not in self._stages:
                # A new dictionary instead of a new key: a reader may be iterating over the old one.
                self._stages = {**self._stages, stage: Latencies()}
            self._stages[stage].add(duration_ms)
        self._finished_s[self.results % _REMEMBERED] = self._clock_s()
        self.results += 1

    @property
    def stages(self) -> Mapping[str, Latencies]:
        """Latencies by stage."""
        return self._stages

    def percentiles(self, share: float) -> dict[str, float]:
        """A percentile (0 to 100) of the latest durations by stage, in milliseconds."""
        return {stage: latencies.percentile(share) for stage, latencies in self._stages.items()}

    def note_captured(self, count: int) -> None:
        """Note how many frames there were so far; called for every frame, and while none comes."""
        now_s = self._clock_s()
        if now_s - self._captured[-1][0] >= _SAMPLE_EVERY_S:
            self._captured.append((now_s, count))
        while len(self._captured) > 1 and self._captured[1][0] <= now_s - _RATE_WINDOW_S:
            self._captured.popleft()

    def frames_per_s(self) -> float:
        """Rate of captured frames over the last five seconds, or since the start."""
        samples = tuple(self._captured)
        (began_s, began), (ended_s, ended) = samples[0], samples[-1]
        return round((ended - began) / (ended_s - began_s), 2) if ended_s > began_s else 0.0

    def results_per_s(self) -> float:
        """Rate of results over the last five seconds, or since the start."""
        now_s = self._clock_s()
        since_s = max(now_s - _RATE_WINDOW_S, self._began_s)
        recent = self._finished_s[self._finished_s > since_s]
        if len(recent) == _REMEMBERED:  # older results in the window are not remembered
            since_s = float(recent.min())
        return round(len(recent) / (now_s - since_s), 2) if len(recent) else 0.0

    def last_result_age_ms(self) -> int | None:
        """Time since the last result; None before the first."""
        if not self.results:
            return None
        return round((self._clock_s() - float(self._finished_s.max())) * 1000)
