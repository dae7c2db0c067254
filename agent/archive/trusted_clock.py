"""A wall clock that is trusted only after an hour without a jump, so that a wrong clock removes no images by age."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STEADY_FOR_S = 3600.0
_JUMP_S = 60.0


class TrustedClock:
    """Compares the wall clock with the monotonic clock at each call.

    Args:
        now_s: Wall clock, seconds since 1970.
        clock_s: Monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float], clock_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._clock_s = clock_s
        self._offset_s = now_s() - clock_s()
        self._steady_since_s = clock_s()

    def now_ms(self) -> int | None:
        """Milliseconds since 1970; None within an hour after the start or a jump of the clock."""
        now_s, clock_s = self._now_s(), self._clock_s()
        if abs(now_s - clock_s - self._offset_s) > _JUMP_S:
            self._offset_s = now_s - clock_s
            self._steady_since_s = clock_s
        return round(now_s * 1000) if clock_s - self._steady_since_s >= _STEADY_FOR_S else None
