"""Counts what odd inputs did at one door of the software, how long each took and how much memory."""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings

from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = 10_000 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 300
FUZZING = settings(
    max_examples=CASES, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None, deadline=None
)
"""Without shrinking, which would repeat slow cases, traced, for minutes."""

LONGEST_S = 5.0  # of the processor's time, which a busy machine does not lengthen
LONGEST_WAIT_S = 60.0
MOST_MIB = 100.0


@dataclass
class Door:
    """One way in; an exception other than ``ShiftwatchError`` passes through."""

    name: str
    accepted: int = 0
    refused: int = 0
    longest_s: float = 0.0
    longest_wait_s: float = 0.0
    most_mib: float = 0.0
    kinds: set[str] = field(default_factory=set)
    begun_mib: float = field(default_factory=lambda: _resident_mib("VmRSS"))

    @contextmanager
    def case(self) -> Iterator[None]:
        """One input, which must be accepted or refused, soon and within little memory."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins again here
        before_mib, begun_s, wait_begun_s = _resident_mib("VmRSS"), time.process_time(), time.perf_counter()
        try:
            yield
        except ShiftwatchError as error:
            if not (error.what and error.remedy and error.one_line.encode()):  # can be printed
                raise AssertionError(error) from error
            self.refused += 1
            self.kinds.add(type(error).__name__)
        else:
            self.accepted += 1
        self.longest_s = max(self.longest_s, time.process_time() - begun_s)
        self.longest_wait_s = max(self.longest_wait_s, time.perf_counter() - wait_begun_s)
        self.most_mib = max(self.most_mib, _resident_mib("VmHWM") - before_mib)
        assert self.longest_s <= LONGEST_S
        assert self.longest_wait_s <= LONGEST_WAIT_S
        assert self.most_mib <= MOST_MIB

    def summary(self) -> str:
        """One line with all counts."""
        grown_mib = _resident_mib("VmRSS") - self.begun_mib
        assert grown_mib <= MOST_MIB
        return (
            f"{self.name}: {self.accepted + self.refused} cases, {self.accepted} accepted, {self.refused} refused "
            f"({', '.join(sorted(self.kinds))}), longest {self.longest_s:.2f} s of processor time "
            f"and {self.longest_wait_s:.2f} s in all, most memory of one {self.most_mib:.0f} MiB, "
            f"growth over all {grown_mib:.0f} MiB\n"
        )


def _resident_mib(entry: str) -> float:
    found = re.search(rf"{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return int(found[1]) / 1024
