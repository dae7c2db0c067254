"""How the agent's log reads: for people, for the journal, or one JSON object a line."""

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
    """Log to a stream from here on, unless somebody has set up logging already.

    Args:
        level: Name of the lowest level that is logged, in any case.
        log_format: As configured; text that systemd's journal takes gets priorities instead of times.
        station: Topic root, in each JSON object.
        stream: Where to.
        environment: Of the process: ``JOURNAL_STREAM`` names the journal's stream.

    Returns:
        Whether a program reads the log: it must then find in it whatever is said, the last error, too.
    """
    of_journal = _is_journal(stream, environment)
    handler = logging.StreamHandler(stream)
    if log_format == "json":
        handler.setFormatter(_Json(station))
    elif of_journal:
        handler.setFormatter(_Journal("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return log_format == "json" or of_journal


class _Json(logging.Formatter):
    """ASCII, so that every line is JSON whatever the locale is."""

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
    """The journal has the time itself, takes each line as an entry, and its priority from ``<N>`` in front."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _SYSLOG if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """The variable is inherited, so that it also stands where the stream has been led elsewhere."""
    named = environment.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file behind it
        return False
    return named == f"{status.st_dev}:{status.st_ino}"
