"""Notices that the process stood still: stopped, frozen, suspended with its machine, or starved of its processor.

What lies in its sockets then is as old as the standstill. It is read first, and looks as if it had just come.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTEST_NS = 100_000_000
_QUIET_NS = 250_000_000
_BACKLOG_ENDS_NS = 2_000_000_000


def _since_boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Standstill:
    """How long a message may have lain unread; for one thread, which reads the messages.

    Order of calls: ``look`` right before each wait for messages and right after it; ``unread_ms`` for each message.

    After a standstill all messages are old until none has come for a quarter of a second, but for two seconds at most:
    a broker hands over what it holds back in several steps.

    Args:
        limit_ms: A longer time without a call is a standstill; at least 100 ms.
        clock_ns: Runs on while the machine is suspended.
    """

    def __init__(self, limit_ms: int, clock_ns: Callable[[], int] = _since_boot_ns) -> None:
        self._limit_ns = max(limit_ms * 1_000_000, _SHORTEST_NS)
        self._clock_ns = clock_ns
        self._looked_ns = clock_ns()
        self._lasted_ms = 0
        self._quiet_at_ns = self._backlog_ends_ns = 0

    @property
    def wait_s(self) -> float:
        """The longest wait for messages: a standstill within it must show as one."""
        return self._limit_ns / 4e9

    def begin(self) -> None:
        """Begin with a new connection, in which nothing has waited."""
        self._looked_ns, self._quiet_at_ns = self._clock_ns(), 0

    def look(self) -> bool:
        """Note that messages are being looked for now; returns whether the process stood still before that."""
        now_ns = self._clock_ns()
        gap_ns, self._looked_ns = now_ns - self._looked_ns, now_ns
        if gap_ns <= self._limit_ns:
            return False
        self._lasted_ms = gap_ns // 1_000_000
        self._quiet_at_ns, self._backlog_ends_ns = now_ns + _QUIET_NS, now_ns + _BACKLOG_ENDS_NS
        return True

    def unread_ms(self) -> int:
        """How long a message that was found by the last ``look`` may have waited; 0 unless the process stood still."""
        now_ns = self._looked_ns
        if now_ns >= min(self._quiet_at_ns, self._backlog_ends_ns):
            return 0
        self._quiet_at_ns = now_ns + _QUIET_NS
        return self._lasted_ms
