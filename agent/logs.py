"""Sets up the log: for people, for the systemd journal, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

LogFormat: TypeAlias = Literal["text", "json"]

_SYSLOG = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


def set_up(
    level: str,
    log_format: LogFormat,
    station: str,
    stream: TextIO = sys.stderr,
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Log to a stream, unless logging is set up already.

    Args:
        level: Name of the lowest level that is logged, in upper or lower case.
        log_format: As configured; text for systemd's journal has priorities instead of times.
        station: Topic root, part of each JSON object.
        stream: Destination.
        environment: Environment of the process; ``JOURNAL_STREAM`` names the journal's stream.

    Returns:
        Whether a program reads the log, so that the final error must be logged as well.
    """
    to_journal = _is_journal(stream, environment)
    handler = logging.StreamHandler(stream)
    if log_format == "json":
        handler.setFormatter(_Json(station))
    elif to_journal:
        handler.setFormatter(_Journal("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return log_format == "json" or to_journal


class _Json(logging.Formatter):
    """ASCII, so that every line is JSON in any locale."""

    def __init__(self, station: str) -> None:
        super().__init__()
        self._station = station

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        content = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "station": self._station,
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content)


class _Journal(logging.Formatter):
    """For the journal: no time, and a priority ``<N>`` in front of each line, which is an entry of its own."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _SYSLOG if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the stream is the journal; the variable alone is inherited even where the stream was redirected."""
    named = environment.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file behind it
        return False
    return named == f"{status.st_dev}:{status.st_ino}"
