"""Evidence that blocks of parts lie beyond a limit: a sequential test whose false-alarm rate is stated.

An e-detector (Shin, Ramdas and Rinaldo 2022, "E-detectors: a nonparametric framework for sequential change detection",
definition 2.2 and section 2.3): bettors start anew with each block, one unit of money each, and what all of them own
together is at least M on average no sooner than after M blocks. They bet on one thing alone, that a block lies beyond
the limit, and lose on average as long as that is not more probable than that it does not.
"""

from __future__ import annotations

import math

BETS = (0.6, 0.75, 0.9)
"""Probabilities of a block beyond the limit on which the bettors bet, a third of each one's money on each."""
ENDS_AFTER = 12
"""Blocks in a row within the limit that end what was found: one time in 4096 while it lasts."""


class Evidence:
    """Of one side of one statistic.

    Args:
        every_blocks: While a block is not more often beyond the limit than within it, whatever came before, one is
            found no sooner than after so many blocks on average.

    Attributes:
        found: Whether it is there: from enough evidence until `ENDS_AFTER` blocks in a row that have none.
    """

    def __init__(self, every_blocks: float) -> None:
        self.found = False
        self._every_blocks = every_blocks
        self._within = 0
        self._shares = [0.0] * len(BETS)

    @property
    def strength(self) -> float:
        """From 0 to 1, which is enough; on a logarithmic scale."""
        return 1.0 if self.found else math.log1p(self._owned) / math.log1p(self._every_blocks)

    def add(self, *, beyond: bool) -> None:
        """One block further."""
        if self.found:
            self._within = 0 if beyond else self._within + 1
            if self._within == ENDS_AFTER:
                self.found, self._within, self._shares = False, 0, [0.0] * len(BETS)
            return
        self._shares = [
            (own + 1.0) * 2.0 * (bet if beyond else 1.0 - bet) for own, bet in zip(self._shares, BETS, strict=True)
        ]
        self.found = self._owned >= self._every_blocks

    @property
    def _owned(self) -> float:
        return sum(self._shares) / len(self._shares)
