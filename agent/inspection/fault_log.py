"""Logs that frames cannot be inspected: once when it begins, once when it has ended."""

from __future__ import annotations

import logging

ENDED_AFTER_S = 10.0
"""Time without such a frame after which it has ended: a camera that damages every third frame is one fault."""

log = logging.getLogger(__name__)


class FaultLog:
    """Remembers the last frame that could not be inspected."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def note(self, fault: str | None, captured_ns: int) -> None:
        """Note a frame: why it could not be inspected, if so, and when it was captured."""
        if fault is not None:
            if self._last_ns is None:
                log.error("frames cannot be inspected: %s", fault)
            self._last_ns = captured_ns
        elif self._last_ns is not None and captured_ns - self._last_ns >= ENDED_AFTER_S * 1e9:
            log.info("frames can be inspected again")
            self._last_ns = None
