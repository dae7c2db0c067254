"""The alert that is active, also after the process has died: one small file beside the outbox.

An agent that is killed while an alert is active must end it when it comes back, or the line waits for ever. One that
is killed while it ends an alert must say the same end again, or the line hears two.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING

from agent.records import Alert
from calibration.durable import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


class ActiveAlert:
    """Remembers the last message of the active alert.

    Args:
        path: The file; absent while no alert is active.

    Attributes:
        alert: The active alert; None without one.
        left_over: The one that an earlier process left active, or whose ``end`` it may not have recorded any more;
            None without one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.alert: Alert | None = None
        self._is_failing = False
        self.left_over = self._read()

    def note(self, alert: Alert) -> None:
        """An alert begins, changes or ends; call it before that is recorded."""
        self.alert = None if alert.type == "end" else alert
        if alert.type == "update":
            return  # who it is and since when was written at the beginning
        with self._told_if_it_fails():
            replace_file(self._path, json.dumps(alert.payload()).encode())

    def forget(self) -> None:
        """The end is recorded: nothing is left over."""
        with self._told_if_it_fails():
            self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _told_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_failing:
                log.warning("cannot remember the active alert in %s: %s", self._path, error)
            self._is_failing = True
        else:
            self._is_failing = False

    def _read(self) -> Alert | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._path.read_text())
            begun = Alert(
                alert_id=str(known["alertId"]),
                type="new",
                severity=int(known["severity"]),
                cause=str(known["cause"]),
                started_at_ms=int(known["startTime"]),
                result_id=known["resultId"],
            )
            return begun if known["type"] == "new" else begun.ended(int(known["endTime"]), known["resultId"])
        return None
