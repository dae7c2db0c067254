"""Which processor cores the threads of one inference run on.

A thread that has slept since the frame before is often woken on the core of the one that wakes it; both then share that
core for the whole inference while another one idles. So the threads get a core each, and the caller keeps off them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cores:
    """Of all threads, where the network has all or all but one of the cores of this process.

    Where it has few of many, the scheduler chooses: several stations may share the others, and none knows which.

    Args:
        threads: Of one inference, the caller among them; 0 is none of them known.
    """

    def __init__(self, threads: int) -> None:
        self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        has_nearly_all = max(2, len(self._allowed) - 1) <= threads <= len(self._allowed)
        self._taken = sorted(self._allowed)[1 - threads :] if has_nearly_all else []

    @property
    def affinities(self) -> str | None:
        """As ONNX Runtime takes them: cores counted from 1, one for each thread but the caller."""
        return ";".join(str(core + 1) for core in self._taken) or None

    @contextmanager
    def left_to_threads(self) -> Iterator[None]:
        """The calling thread is elsewhere meanwhile, and may be everywhere afterwards; costs two system calls."""
        if not self._taken:
            yield
            return
        _move_to(self._allowed.difference(self._taken))
        try:
            yield
        finally:
            _move_to(self._allowed)


def _move_to(cores: set[int]) -> None:
    with suppress(OSError):  # cores were taken away since, or it is not allowed: inference is slower then, and right
        os.sched_setaffinity(0, cores)
