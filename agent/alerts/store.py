"""The active alerts, kept in one small file so that they outlive the process.

An agent that was killed while an alert was active must end it at the next start, or the line waits for ever. One that
was killed while ending an alert must publish the same end again, or the line receives two different ones.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from agent.messages.records import Alert
from calibration.atomic_file import replace_file

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class ActiveAlerts:
    """Each active alert; several with different causes may be active at once.

    Args:
        path: The file; absent while no alert is active.

    Attributes:
        left_over: Alerts that an earlier process left active, or whose ``end`` it may not have recorded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._active: dict[str, Alert] = {}
        self._is_failing = False
        self.left_over = self._read()
        self._kept = {alert.alert_id: alert for alert in self.left_over}

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The active ones; from any thread."""
        return tuple(self._active.values())

    def note(self, alert: Alert) -> None:
        """Note that an alert starts, changes or ends; called before that is recorded."""
        others = {identity: other for identity, other in self._active.items() if identity != alert.alert_id}
        self._active = others if alert.type == "end" else {**others, alert.alert_id: alert}
        if alert.type != "update":  # an update changes nothing that is in the file
            self._kept[alert.alert_id] = alert
            self._write()

    def forget(self, alert: Alert) -> None:
        """Remove an alert whose end is recorded."""
        if self._kept.pop(alert.alert_id, None) is not None:
            self._write()

    def _write(self) -> None:
        try:
            if self._kept:
                replace_file(self._path, json.dumps([alert.payload() for alert in self._kept.values()]).encode())
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            if not self._is_failing:
                log.warning("cannot write the active alerts to %s: %s", self._path, error)
            self._is_failing = True
        else:
            self._is_failing = False

    def _read(self) -> tuple[Alert, ...]:
        try:
            known = json.loads(self._path.read_text())
            return tuple(_alert(each) for each in (known if isinstance(known, list) else [known]))
        except (OSError, ValueError, KeyError, TypeError):
            return ()


def _alert(known: dict[str, Any]) -> Alert:
    started = Alert(
        alert_id=str(known["alertId"]),
        type="new",
        severity=int(known["severity"]),
        cause=str(known["cause"]),
        started_at_ms=int(known["startTime"]),
        result_id=known["resultId"],
    )
    return started if known["type"] == "new" else started.ended(int(known["endTime"]), known["resultId"])
