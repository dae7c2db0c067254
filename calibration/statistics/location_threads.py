"""Threads for what is computed for each location by itself; one, unless a workstation asks for more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")

_BLOCK = 16  # locations that a thread takes at a time: their covariances fit the processor's cache

_threads: ContextVar[int] = ContextVar("location_threads", default=1)


@contextmanager
def location_threads(count: int) -> Iterator[None]:
    """Use this many threads in the block; results are the same with any number."""
    token = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(token)


def in_blocks(work: Callable[[slice], Result], locations: int) -> list[Result]:
    """The results of some work on each block of locations, in order; NumPy's products leave other threads running."""
    blocks = [slice(start, min(start + _BLOCK, locations)) for start in range(0, locations, _BLOCK)]
    threads = min(_threads.get(), len(blocks))
    if threads <= 1:
        return [work(each) for each in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, blocks))
