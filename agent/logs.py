"""Sets up the log: for people, for the systemd journal, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from copy import copy
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias

from calibration.errors import ShiftwatchError
from calibration.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import TextIO

LogFormat: TypeAlias = Literal["text", "json"]
_ExceptionInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"

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
        handler.setFormatter(_Text("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return log_format == "json" or to_journal


def log_crashes() -> None:
    """From here on, log what ends this process or one of its threads, where Python would print it as it is."""
    log = logging.getLogger("agent")

    def log_crash(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not issubclass(kind, KeyboardInterrupt):
            log.critical("an error that was not expected", exc_info=(kind, error, trace))

    sys.excepthook = log_crash
    threading.excepthook = lambda crash: log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)


class _Text(logging.Formatter):
    """One line for each record; the lines of a traceback follow, indented, so that no text can pass for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = _message(record)
        return super().formatMessage(record)

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)


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


class _Journal(_Text):
    """For the journal: no time, and a priority ``<N>`` in front of each line, which is an entry of its own."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _SYSLOG if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def _message(record: logging.LogRecord) -> str:
    """The message on one line: names, commands and errors in it come from outside."""
    one_line = copy(record)
    if isinstance(record.args, tuple):
        one_line.args = tuple(each.one_line if isinstance(each, ShiftwatchError) else each for each in record.args)
    return printable(one_line.getMessage())


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
