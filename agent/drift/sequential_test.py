"""A sequential test with a stated false-alarm rate: do blocks of parts lie beyond a limit?

An e-detector (Shin, Ramdas and Rinaldo 2022, "E-detectors: a nonparametric framework for sequential change detection",
definition 2.2 and section 2.3). With each block new bettors start with one unit of money each; together they own M no
sooner than after M blocks on average. They bet only that a block lies beyond the limit, at odds by which they lose on
average as long as nothing has changed.

The odds allow for neighbours being alike. After a block within the limit, the next is assumed to lie beyond it with
probability one half. After a block beyond it, the run is assumed to end with three quarters of the frequency at which
earlier runs ended, because the longest runs exceed the mean by far.
"""

from __future__ import annotations

import math

BETS = (0.2, 0.5, 0.8)
"""How far above the odds the bettors bet, as a share of the way to certainty; a third of the money on each."""
ENDS_AFTER = 8
"""Blocks in a row within the limit that end a drift."""
_EVEN = 0.5
_ENDS_RARER = 0.75


class SequentialTest:
    """Tests one direction of one statistic.

    Args:
        every_blocks: Average number of blocks to a false alarm, at least, while nothing has changed.

    Attributes:
        found: Whether there is drift: from enough evidence until `ENDS_AFTER` blocks in a row within the limit.
    """

    def __init__(self, every_blocks: float) -> None:
        self.found = False
        self._every_blocks = every_blocks
        self._within = 0
        self._owned = [0.0] * len(BETS)
        self._run = 0
        self._runs_ended = 0
        self._blocks_in_ended_runs = 0

    @property
    def strength(self) -> float:
        """Evidence from 0 to 1, on a logarithmic scale; drift is found at 1."""
        return 1.0 if self.found else math.log1p(self._mean) / math.log1p(self._every_blocks)

    def add(self, *, beyond: bool) -> None:
        """Add a block."""
        if self.found:
            self._within = 0 if beyond else self._within + 1
            self.found = self._within < ENDS_AFTER
            if not self.found:
                self._owned, self._run = [0.0] * len(BETS), 0  # a drift does not count as a run
            return
        odds = self._odds()
        bets = [odds + (1.0 - odds) * each for each in BETS]
        gains = [bet / odds if beyond else (1.0 - bet) / (1.0 - odds) for bet in bets]
        self._owned = [(own + 1.0) * gain for own, gain in zip(self._owned, gains, strict=True)]
        self._count(beyond=beyond)
        self.found, self._within = self._mean >= self._every_blocks, 0

    @property
    def _mean(self) -> float:
        return sum(self._owned) / len(self._owned)

    def _odds(self) -> float:
        """Probability that the next block lies beyond the limit."""
        if not self._run:
            return _EVEN
        ends = (self._runs_ended + 1.0) / (self._blocks_in_ended_runs + 2.0)
        return max(_EVEN, 1.0 - _ENDS_RARER * ends)

    def _count(self, *, beyond: bool) -> None:
        if beyond:
            self._run += 1
        elif self._run:
            self._runs_ended += 1
            self._blocks_in_ended_runs += self._run
            self._run = 0
