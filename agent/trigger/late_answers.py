"""Notices that verdicts come after the deadline: once when it begins, once when it has ended."""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

_IN_A_ROW = 5


class LogEntry(NamedTuple):
    """What to log, as ``Logger.log`` takes it."""

    level: int
    text: str


class LateAnswers:
    """Follows the parts that the controller waits for; calls come one at a time, in the order of the answers.

    Args:
        deadline_ms: Of each part.
        waits: The settings that a verdict waits for, in words.
    """

    def __init__(self, deadline_ms: int, waits: str) -> None:
        self._deadline_ms = deadline_ms
        self._waits = waits
        self._missed = 0
        self._is_reported = False
        self._took_ms: deque[float] = deque(maxlen=_IN_A_ROW)

    def missed(self) -> None:
        """The deadline of a part has passed, and nothing but time was missing."""
        self._missed += 1

    def late(self, took_ms: float) -> None:
        """The verdict on such a part has come after all."""
        self._took_ms.append(took_ms)

    def kept(self) -> None:
        """A verdict came in time."""
        self._missed = 0
        self._took_ms.clear()

    def change(self) -> LogEntry | None:
        """What has begun or ended since the last call; None if nothing."""
        is_late = self._missed >= _IN_A_ROW
        if is_late == self._is_reported or 0 < self._missed < _IN_A_ROW:
            return None
        self._is_reported = is_late
        if not is_late:
            return LogEntry(logging.INFO, "verdicts come within plc.deadline_ms again")
        settings = f" ({self._waits})" if self._waits else ""
        return LogEntry(
            logging.WARNING,
            f"{self._missed} parts in a row had no verdict within plc.deadline_ms {self._deadline_ms}, and the "
            f"controller got `valid: false`: {self._when()}{settings}; raise plc.deadline_ms and the controller's own "
            "time-out, or shorten what takes long: see `shiftwatch-agent doctor`",
        )

    def _when(self) -> str:
        if not self._took_ms:
            return "none of them has a verdict so far"
        least, most = min(self._took_ms), max(self._took_ms)
        return f"their verdicts came {least:.0f} to {most:.0f} ms after the trigger or first frame"
