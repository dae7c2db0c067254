"""Thousands of damaged inputs through one door: none may crash it, hold it up or fill the memory."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CASES = 10_000 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 300
_MOST_S = 5.0
_MOST_GROWTH_MIB = 100.0
_MOST_CHANGES = 4
_TOKENS = (
    b"\x00",
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


def damaged(seeds: Sequence[bytes], cases: int) -> Iterator[bytes]:
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


def refuse_harm(name: str, inputs: Iterator[bytes], door: Callable[[bytes], str], pid: int | None = None) -> None:
    """Send each input through the door, which says how it ended; print how many ended how.

    Args:
        name: Of the door.
        inputs: What to send.
        door: Raises what must not happen.
        pid: The process behind the door, if not this one.
    """
    ends: dict[str, int] = {}
    slowest_s = 0.0
    before_mib = memory_mib(pid)
    for content in inputs:
        began_s = time.monotonic()
        end = door(content)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        ends[end] = ends.get(end, 0) + 1
        assert slowest_s < _MOST_S, content
    grown_mib = memory_mib(pid) - before_mib
    print(f"{name}: {sum(ends.values())} inputs, {ends}, slowest {slowest_s:.2f} s, memory +{grown_mib:.0f} MiB")  # noqa: T201 - with pytest -s
    assert grown_mib < _MOST_GROWTH_MIB
    assert len(ends) > 1, "all ended alike, so that nothing was tried"


def memory_mib(pid: int | None = None) -> float:
    """Memory that a process holds now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid or os.getpid()}/status").read_text())
    assert found, "this kernel does not say how much memory a process holds"
    return int(found[1]) / 1024
