"""Makes damaged inputs, and counts what they did at one door of the software, how long each took, how much memory."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import HealthCheck, Phase, settings

from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest

CASES = 10_000 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 300
FUZZING = settings(
    max_examples=CASES, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None, deadline=None
)
"""Without shrinking, which would repeat slow cases, traced, for minutes."""

_MOST_CHANGES = 4
_TOKENS = (
    b"\0",
    b"\xff",
    b"\n",
    b"\r\n",
    b"%00",
    b"../",
    b"{",
    b"}",
    b'"',
    b"\\ud800",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 40,
)

LONGEST_S = 5.0  # of the processor's time, which a busy machine does not lengthen
LONGEST_WAIT_S = 60.0
MOST_MIB = 100.0


@dataclass
class Door:
    """One way in; an exception other than ``ShiftwatchError`` passes through.

    Attributes:
        name: For the summary.
        most_wait_s: The longest that an input may take.
        pid: The process behind the door, if not this one.
        ends: How many inputs ended how.
    """

    name: str
    most_wait_s: float = LONGEST_WAIT_S
    pid: int | None = None
    ends: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    longest_wait_s: float = 0.0
    most_mib: float = 0.0
    begun_mib: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun_mib = _resident_mib("VmRSS", self.pid)

    @property
    def accepted(self) -> int:
        return self.ends["accepted"]

    @property
    def refused(self) -> int:
        return sum(count for end, count in self.ends.items() if end.startswith("refused"))

    @contextmanager
    def case(self) -> Iterator[Callable[[str], None]]:
        """One input, which must end soon and within little memory; takes how it ended, if in another way."""
        ends = ["accepted"]
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins again here
        before_mib, begun_s, wait_begun_s = _resident_mib("VmRSS"), time.process_time(), time.perf_counter()
        try:
            yield ends.append
        except ShiftwatchError as error:
            if not (error.what and error.remedy and error.one_line.encode()):  # can be printed
                raise AssertionError(error) from error
            ends.append(f"refused, {type(error).__name__}")
        self.ends[ends[-1]] += 1
        self.longest_s = max(self.longest_s, time.process_time() - begun_s)
        self.longest_wait_s = max(self.longest_wait_s, time.perf_counter() - wait_begun_s)
        self.most_mib = max(self.most_mib, _resident_mib("VmHWM") - before_mib)
        assert self.longest_s <= LONGEST_S
        assert self.longest_wait_s <= self.most_wait_s
        assert self.most_mib <= MOST_MIB

    def summary(self) -> str:
        """One line with all counts."""
        grown_mib = _resident_mib("VmRSS", self.pid) - self.begun_mib
        assert grown_mib <= MOST_MIB
        assert len(self.ends) > 1, "all ended alike, so that nothing was tried"
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return (
            f"{self.name}: {self.ends.total()} cases, {ends}; longest {self.longest_s:.2f} s of processor time "
            f"and {self.longest_wait_s:.2f} s in all, most memory of one {self.most_mib:.0f} MiB, "
            f"growth over all {grown_mib:.0f} MiB\n"
        )


def report(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the counts, also where output is captured."""
    with capsys.disabled():
        sys.stdout.write(f"\n{door.summary()}")


def damaged(seeds: Sequence[bytes], cases: int = CASES) -> Iterator[bytes]:
    """Valid inputs with up to four changes each: bytes flipped, cut out, repeated, inserted; or ended early."""
    generator = np.random.default_rng(0 if os.environ.get("CI") else None)
    for _ in range(cases):
        content = bytearray(seeds[int(generator.integers(len(seeds)))])
        for _ in range(generator.integers(_MOST_CHANGES + 1)):
            _damage(content, generator)
        yield bytes(content)


def _damage(content: bytearray, generator: np.random.Generator) -> None:
    begin = int(generator.integers(len(content) + 1))
    end = min(len(content), begin + int(generator.integers(1, 40)))
    match generator.integers(6):
        case 0 if begin < len(content):
            content[begin] ^= 1 << int(generator.integers(8))
        case 1 if begin < len(content):
            content[begin] = int(generator.integers(256))
        case 2:
            del content[begin:end]
        case 3:
            content[begin:begin] = content[begin:end] * int(generator.integers(1, 30))
        case 4:
            content[begin:begin] = _TOKENS[int(generator.integers(len(_TOKENS)))]
        case _:
            del content[begin:]


def _resident_mib(entry: str, pid: int | None = None) -> float:
    status = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii")
    found = re.search(rf"{entry}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024
