"""Back to a bundle that was served before, while the inspection goes on."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import AuditError, CommandRefusedError
from agent.payloads import acknowledgement_payload
from calibration.bundle import open_bundle
from calibration.errors import BundleError, ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.audit import AuditLog
    from agent.commands import Command, Do
    from agent.commands.text import RollbackArguments
    from agent.recipe.controls import Controls, Served
    from agent.recipe.versions import Version, Versions
    from agent.records import Payload
    from calibration.bundle import Bundle

log = logging.getLogger(__name__)


class Rollback:
    """Prepares the other bundle on a thread of its own and offers it to the loop.

    Args:
        serve: Gives the engine of a bundle, proved on its golden frames.
        in_loop: Engines must be made by the thread that uses them: the frames of those seconds are dropped.
        follow_up: Told how a command went on.
        changed: Called when another bundle judges.
    """

    def __init__(  # noqa: PLR0913 - each once
        self,
        controls: Controls,
        versions: Versions,
        audit: AuditLog,
        serve: Callable[[Bundle], Served],
        *,
        in_loop: bool,
        follow_up: Callable[[Payload], None],
        changed: Callable[[], None],
    ) -> None:
        self._controls = controls
        self._versions = versions
        self._audit = audit
        self._serve = serve
        self._in_loop = in_loop
        self._follow_up = follow_up
        self._changed = changed
        self._under_way = threading.Lock()

    def prepare(self, command: Command, arguments: RollbackArguments) -> Do:
        """See `commands.Action`."""
        version = self._versions.before(self._controls.served.bundle.identity, arguments.bundle)

        def begin() -> None:
            if not self._under_way.acquire(blocking=False):
                raise CommandRefusedError(
                    what="another rollback is under way", remedy="wait for its acknowledgement on cmd/ack"
                )
            threading.Thread(target=self._work, args=(command, version), name="rollback", daemon=True).start()

        return begin

    def _work(self, command: Command, version: Version) -> None:
        def ended(error: ShiftwatchError | None) -> None:
            self._end(command, error)

        try:
            bundle = open_bundle(Path(version.path))
            if bundle.identity != version.identity:
                raise BundleError(
                    what=f"{version.path} holds another bundle now",
                    remedy="keep each bundle in a folder of its own; deploy the old one again",
                )
            served = None if self._in_loop else self._serve(bundle)
        except ShiftwatchError as error:
            ended(error)
            return
        self._controls.exchange(lambda: served or self._serve(bundle), ended)

    def _end(self, command: Command, error: ShiftwatchError | None) -> None:
        served = self._controls.served
        bundle = served.bundle
        said = None if error is None else f"{error.what}; {error.remedy}"
        audit_hash = None
        try:
            if error is None:
                self._versions.note(bundle, served.recipe.rules.threshold)
                self._changed()
                log.info("the bundle %s judges from now on", bundle.identity[:12])
            else:
                log.error("rollback failed, the bundle stays: %s", said)
            audit_hash = self._audit.append(
                "rolled back" if error is None else "failed",
                commandId=command.command_id,
                bundle=bundle.identity,
                reason=said,
            )
        except (OSError, AuditError) as failure:
            log.error("after the next start the configured bundle may judge again: %s", failure)  # noqa: TRY400 - the message says it all
        finally:
            self._under_way.release()
        self._follow_up(
            acknowledgement_payload(
                command_id=command.command_id,
                command=command.name,
                accepted=error is None,
                error=said,
                progress=1.0,
                audit_hash=audit_hash,
            )
        )
