"""Logs that frames cannot be inspected: once when it begins, once when it has ended, and once if none could be."""

from __future__ import annotations

import logging

ENDED_AFTER_S = 10.0
"""Time without such a frame after which it has ended: a camera that damages every third frame is one fault."""

_FIRST_PARTS = 20

log = logging.getLogger(__name__)


class FaultLog:
    """Remembers the last frame that could not be inspected."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._in_vain: int | None = 0

    def note(self, fault: str | None, captured_ns: int) -> None:
        """Note a frame: why it could not be inspected, if so, and when it was captured."""
        if fault is not None:
            if self._last_ns is None:
                log.error("frames cannot be inspected: %s", fault)
            self._last_ns = captured_ns
            self._note_first()
            return
        self._in_vain = None
        if self._last_ns is not None and captured_ns - self._last_ns >= ENDED_AFTER_S * 1e9:
            log.info("frames can be inspected again")
            self._last_ns = None

    def _note_first(self) -> None:
        if self._in_vain is None:
            return
        self._in_vain += 1
        if self._in_vain == _FIRST_PARTS:
            log.error(
                "none of the first %d parts could be inspected: the bundle may be taught from other pictures than this "
                "camera gives; stop the station and run `shiftwatch-agent doctor`, which compares them",
                _FIRST_PARTS,
            )
            self._in_vain = None
