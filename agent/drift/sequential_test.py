"""Evidence that blocks of parts lie beyond a limit: a sequential test whose false-alarm rate is stated.

An e-detector (Shin, Ramdas and Rinaldo 2022, "E-detectors: a nonparametric framework for sequential change detection",
definition 2.2 and section 2.3): bettors start anew with each block, one unit of money each, and what all of them own
together is at least M on average no sooner than after M blocks. They bet on one thing alone, that a block lies beyond
the limit, at odds by which they lose on average as long as nothing has changed.

The odds know that neighbours are alike. After a block within the limit, one beyond it is taken to be as probable as
not; after one beyond it, an end of the run to be three quarters as probable as in the runs that have ended, whose
longest are longer than their mean tells.
"""

from __future__ import annotations

import math

BETS = (0.2, 0.5, 0.8)
"""How far above the odds the bettors bet, of the way to certainty; a third of each one's money on each."""
ENDS_AFTER = 8
"""Blocks in a row within the limit that end what was found."""
_EVEN = 0.5
_ENDS_RARER = 0.75


class SequentialTest:
    """Of one side of one statistic.

    Args:
        every_blocks: While blocks are beyond the limit no more often than the odds say, drift is found no sooner than
            after so many on average.

    Attributes:
        found: Whether it is there: from enough evidence until `ENDS_AFTER` blocks in a row that have none.
    """

    def __init__(self, every_blocks: float) -> None:
        self.found = False
        self._every_blocks = every_blocks
        self._within = 0
        self._owned = [0.0] * len(BETS)
        self._run = 0
        self._runs_ended = 0
        self._blocks_in_them = 0

    @property
    def strength(self) -> float:
        """From 0 to 1, which is enough; on a logarithmic scale."""
        return 1.0 if self.found else math.log1p(self._mean) / math.log1p(self._every_blocks)

    def add(self, *, beyond: bool) -> None:
        """One block further."""
        if self.found:
            self._within = 0 if beyond else self._within + 1
            self.found = self._within < ENDS_AFTER
            if not self.found:
                self._owned, self._run = [0.0] * len(BETS), 0  # what has drifted is no example of a run
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
        ends = (self._runs_ended + 1.0) / (self._blocks_in_them + 2.0)
        return max(_EVEN, 1.0 - _ENDS_RARER * ends)

    def _count(self, *, beyond: bool) -> None:
        if beyond:
            self._run += 1
        elif self._run:
            self._runs_ended += 1
            self._blocks_in_them += self._run
            self._run = 0
