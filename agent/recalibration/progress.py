"""How a recalibration is told: its progress, its last word, its entry in the audit log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from agent.commands.dispatcher import final_ack
from agent.errors import AuditError
from agent.messages.payloads import CommandAck
from agent.recalibration import results
from agent.zones.recipe import about_zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.audit.log import AuditLog
    from agent.messages.records import Payload
    from agent.recalibration.plan import Task
    from calibration.errors import ShiftwatchError

log = logging.getLogger(__name__)

_EVERY_S = 1.0


class Progress(NamedTuple):
    """How far one has come.

    Attributes:
        zone: That learns; empty where it has no name.
        share: 0 to 1.
    """

    command_id: str
    zone: str
    phase: str
    share: float


class ProgressReporter:
    """To whoever commanded it, to the log, and to the audit log.

    Args:
        audit: The log that stays.
        follow_up: Told how a command goes on; from any thread.

    Attributes:
        at: How far the one under way has come; None where none is.
    """

    def __init__(self, audit: AuditLog, follow_up: Callable[[Payload], None]) -> None:
        self.at: Progress | None = None
        self._audit = audit
        self._follow_up = follow_up
        self._told_s = float("-inf")

    def progress(self, task: Task, phase: str, share: float) -> None:
        """Each phase, and once a second."""
        before, self.at = self.at, Progress(task.command.command_id, task.zone.name, phase, share)
        is_new = before is None or before.phase != phase
        if is_new:
            log.info(about_zone(task.zone.name, "recalibration: %s"), phase)
        if is_new or time.monotonic() - self._told_s >= _EVERY_S:
            self._told_s = time.monotonic()
            self._follow_up(
                CommandAck(
                    command_id=task.command.command_id,
                    command=task.command.name,
                    accepted=True,
                    progress=round(share, 3),
                    phase=phase,
                ).payload()
            )

    def note(self, task: Task, found: Payload, event: str, error: ShiftwatchError | None) -> str | None:
        """Write down that nothing was changed, and why; the hash of the entry, if there is one."""
        try:
            reason = None if error is None else error.one_line
            about = {**task.zone.noted, **noted(task, found)}
            return self._audit.append(event, commandId=task.command.command_id, reason=reason, **about)
        except AuditError as failure:
            log.error("%s", failure.what)  # noqa: TRY400 - the message says it all
            return None

    def last(self, task: Task, found: Payload, error: ShiftwatchError | None, audit_hash: str | None) -> None:
        """How it went, with all figures."""
        log.log(
            logging.INFO if error is None else logging.WARNING,
            about_zone(task.zone.name, "recalibration %s: %s"),
            "done" if error is None else f"ended, the bundle stays: {error.one_line}",
            results.text(found),
        )
        self._follow_up(final_ack(task.command, error, audit_hash, found))


def noted(task: Task, found: Payload) -> Payload:
    """What the audit log keeps of one, besides its zone; the figures themselves are in the log."""
    return {
        "parent": task.base.bundle.identity,
        "mode": task.arguments.mode,
        "parts": found.get("parts", found.get("collected", 0)),
        "forced": task.arguments.force and bool(found.get("objections")),
        "figures": results.digest(found),
    }
