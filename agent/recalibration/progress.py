"""How a recalibration is reported: its progress, its result, its entry in the audit log."""

from __future__ import annotations

import logging
import time
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from agent.commands.dispatcher import final_ack
from agent.errors import AuditError
from agent.messages.payloads import CommandAck
from agent.messages.records import to_json
from agent.zones.recipe import about_zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.audit.log import AuditLog
    from agent.messages.payloads import CommandId
    from agent.messages.records import Payload
    from agent.recalibration.plan import Task
    from calibration.errors import ShiftwatchError

log = logging.getLogger(__name__)

_EVERY_S = 1.0


class Progress(NamedTuple):
    """Progress of a recalibration.

    Attributes:
        zone: The zone that is recalibrated; empty if it has no name.
        share: 0 to 1.
    """

    command_id: CommandId | None
    zone: str
    phase: str
    share: float


class ProgressReporter:
    """Reports to the sender of the command, to the log, and to the audit log.

    Attributes:
        at: Progress of the recalibration under way; None if there is none.
    """

    def __init__(self, audit: AuditLog, follow_up: Callable[[Payload], None]) -> None:
        self.at: Progress | None = None
        self._audit = audit
        self._follow_up = follow_up
        self._reported_s = float("-inf")

    def progress(self, task: Task, phase: str, share: float) -> None:
        """Report each new phase, and progress once a second."""
        before, self.at = self.at, Progress(task.command.command_id, task.zone.name, phase, share)
        is_new = before is None or before.phase != phase
        if is_new:
            log.info(about_zone(task.zone.name, "recalibration: %s"), phase)
        if is_new or time.monotonic() - self._reported_s >= _EVERY_S:
            self._reported_s = time.monotonic()
            self._follow_up(
                CommandAck(
                    command_id=task.command.command_id,
                    command=task.command.name,
                    accepted=True,
                    progress=round(share, 3),
                    phase=phase,
                ).payload()
            )

    def note(self, task: Task, figures: Payload, event: str, error: ShiftwatchError | None) -> str | None:
        """Write to the audit log that nothing was changed, and why; the hash of the entry, if there is one."""
        try:
            reason = None if error is None else error.one_line
            about = {**task.zone.noted, **audit_fields(task, figures)}
            return self._audit.append(event, commandId=task.command.command_id, reason=reason, **about)
        except AuditError as failure:
            log.error("%s", failure.what)  # noqa: TRY400 - the message says it all
            return None

    def result(self, task: Task, figures: Payload, error: ShiftwatchError | None, audit_hash: str | None) -> None:
        """Report how it ended, with all figures."""
        self.at = None  # first: the answer to the final acknowledgement may be the next recalibration
        log.log(
            logging.INFO if error is None else logging.WARNING,
            about_zone(task.zone.name, "recalibration %s: %s"),
            "done" if error is None else f"ended, the bundle stays: {error.one_line}",
            _sorted_json(figures),
        )
        self._follow_up(final_ack(task.command, error, audit_hash, figures))


def audit_fields(task: Task, figures: Payload) -> Payload:
    """What the audit log keeps of a recalibration, besides its zone; the figures themselves are in the log."""
    return {
        "parent": task.base.bundle.identity,
        "mode": task.arguments.mode,
        "parts": figures.get("parts", figures.get("collected", 0)),
        "forced": task.arguments.force and bool(figures.get("objections")),
        "figures": sha256(_sorted_json(figures).encode()).hexdigest(),
    }


def _sorted_json(figures: Payload) -> str:
    return to_json(dict(sorted(figures.items())))
