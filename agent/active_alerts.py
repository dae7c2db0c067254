"""The alerts that are active, also after the process has died: one small file beside the outbox.

An agent that is killed while an alert is active must end it when it comes back, or the line waits for ever.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from agent.records import Alert
from calibration.durable import replace_file

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class ActiveAlerts:
    """Remembers the last message of each active alert; several with different causes may be active at once.

    Args:
        path: The file; absent while no alert is active.

    Attributes:
        left_over: Those that an earlier process left active.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._active: dict[str, Alert] = {}
        self.left_over = self._read()
        self._kept = {alert.alert_id: alert for alert in self.left_over}

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The active ones; from any thread."""
        return tuple(self._active.values())

    def note(self, alert: Alert) -> None:
        """An alert began, changed or ended."""
        others = {identity: other for identity, other in self._active.items() if identity != alert.alert_id}
        self._active = others if alert.type == "end" else {**others, alert.alert_id: alert}
        if alert.type == "update":
            return  # who it is and since when was written at the beginning
        self._kept.pop(alert.alert_id, None)
        if alert.type == "new":
            self._kept[alert.alert_id] = alert
        try:
            self._write()
        except OSError as error:
            log.warning("cannot remember the active alerts in %s: %s", self._path, error)

    def _write(self) -> None:
        if not self._kept:
            self._path.unlink(missing_ok=True)
            return
        replace_file(self._path, json.dumps([alert.payload() for alert in self._kept.values()]).encode())

    def _read(self) -> tuple[Alert, ...]:
        try:
            known = json.loads(self._path.read_text())
            return tuple(_alert(each) for each in (known if isinstance(known, list) else [known]))
        except (OSError, ValueError, KeyError, TypeError):
            return ()


def _alert(known: dict[str, Any]) -> Alert:
    return Alert(
        alert_id=str(known["alertId"]),
        type="new",
        severity=int(known["severity"]),
        cause=str(known["cause"]),
        started_at_ms=int(known["startTime"]),
        result_id=known["resultId"],
    )
