"""How a command ended, and whether what it said helps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from calibration.terminal import EXIT_ERROR


@dataclass(frozen=True)
class Outcome:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it printed, without the lines of tables and the breaks of a narrow terminal."""
        return re.sub(r"\s+", " ", re.sub(r"[│┃]", " ", self.out))


def assert_refused(outcome: Outcome, what: str, remedy: str) -> None:
    """Exit code 2; says what is wrong and what to do about it, and no more."""
    assert outcome.code == EXIT_ERROR
    message = outcome.err[outcome.err.index("error:") :]
    first, *rest = message.strip().splitlines()
    assert re.search(what, first)
    assert re.search(remedy, " ".join(rest))
    assert len(rest) == 1
    assert "Traceback" not in outcome.err
