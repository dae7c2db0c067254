"""Chooses the processor cores that the threads of one inference run on.

Linux often wakes a thread that slept since the last frame on the core of the thread that wakes it. Both then share this
core for the whole inference while another core idles. So each inference thread gets a core of its own, and the caller
stays off these cores.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cores:
    """Pins inference threads if they use all cores of this process, or all but one.

    With fewer threads the scheduler decides: several stations may share the cores without knowing of each other.

    Args:
        threads: Threads of one inference, including the caller; 0 if unknown.
    """

    def __init__(self, threads: int) -> None:
        self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        has_nearly_all = max(2, len(self._allowed) - 1) <= threads <= len(self._allowed)
        self._taken = sorted(self._allowed)[1 - threads :] if has_nearly_all else []

    @property
    def affinities(self) -> str | None:
        """In the format of ONNX Runtime: one core, counted from 1, for each thread but the caller."""
        return ";".join(str(core + 1) for core in self._taken) or None

    @contextmanager
    def left_to_threads(self) -> Iterator[None]:
        """Keep the calling thread off the pinned cores meanwhile; costs two system calls."""
        if not self._taken:
            yield
            return
        _move_to(self._allowed.difference(self._taken))
        try:
            yield
        finally:
            _move_to(self._allowed)


def _move_to(cores: set[int]) -> None:
    with suppress(OSError):  # not allowed, or a core was taken away: inference is slower but correct
        os.sched_setaffinity(0, cores)
