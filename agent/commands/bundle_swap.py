"""Another bundle judges, while the inspection goes on: proved, exchanged between two frames, written down."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import AuditError, CommandRefusedError
from agent.zones.recipe import about_zone
from calibration.bundle.bundle import open_bundle
from calibration.errors import BundleError, ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.audit.log import AuditLog
    from agent.zones.served import ActiveBundle
    from agent.zones.zone import Zone
    from calibration.bundle.bundle import Bundle

log = logging.getLogger(__name__)


class SwapReason(NamedTuple):
    """Why a bundle is exchanged.

    Attributes:
        event: What the audit log calls it when it is done.
        command_id: Of the command.
        by: Who gave it.
        why: For people.
        learnt_ms: See `recipe.versions.Version`.
        noted: More for the audit log.
    """

    event: str
    command_id: str
    by: str | None
    why: str | None = None
    learnt_ms: int | None = None
    noted: Mapping[str, object] = {}


class BundleSwap:
    """One at a time.

    Args:
        serve: Gives the engine of a bundle for a zone, proved on its golden frames.
        in_loop: Engines must be made by the thread that uses them: the frames of those seconds are dropped.
        changed: Called when another bundle judges.
    """

    def __init__(
        self,
        audit: AuditLog,
        serve: Callable[[Bundle, Zone], ActiveBundle],
        *,
        in_loop: bool,
        changed: Callable[[], None],
    ) -> None:
        self._audit = audit
        self._serve = serve
        self._in_loop = in_loop
        self._changed = changed
        self._under_way = threading.Lock()

    def reserve(self) -> None:
        """Nobody else may exchange until `activate` has ended, which must follow.

        Raises:
            CommandRefusedError: Somebody does.
        """
        if not self._under_way.acquire(blocking=False):
            raise CommandRefusedError(
                what="another bundle is being brought in", remedy="wait for its acknowledgement on cmd/ack"
            )

    def activate(  # noqa: PLR0913, PLR0917 - each once
        self,
        zone: Zone,
        path: Path,
        identity: str,
        occasion: SwapReason,
        ended: Callable[[ShiftwatchError | None, str | None], object],
        allowed: Callable[[], object] = lambda: None,
    ) -> None:
        """Bring a bundle in; returns when it is offered to the loop.

        Args:
            zone: What it shall judge.
            path: Where it lies.
            identity: What must lie there.
            occasion: Why.
            ended: Told what went wrong, if anything, and the hash of the entry in the audit log; mostly on the loop's
                thread.
            allowed: Called on the loop's thread, just before; a ShiftwatchError leaves everything as it was.
        """

        def end(error: ShiftwatchError | None) -> None:
            audit_hash = self._note(zone, occasion, error)
            self._under_way.release()
            ended(error, audit_hash)

        try:
            bundle = open_bundle(path)
            if bundle.identity != identity:
                raise BundleError(
                    what=f"{path} holds another bundle now",
                    remedy="keep each bundle in a folder of its own; deploy the old one again",
                )
            served = None if self._in_loop else self._serve(bundle, zone)
        except ShiftwatchError as error:
            end(error)
            return

        def make() -> ActiveBundle:
            try:
                allowed()
            except ShiftwatchError:
                if served is not None:
                    served.close()
                raise
            return served or self._serve(bundle, zone)

        zone.exchange(make, end)

    def _note(self, zone: Zone, occasion: SwapReason, error: ShiftwatchError | None) -> str | None:
        """Write down how it went; the hash of the entry in the audit log, if there is one."""
        served = zone.served
        bundle = served.bundle
        said = None if error is None else error.one_line
        try:
            if error is None:
                zone.versions.note(
                    bundle,
                    served.recipe.rules.threshold,
                    by=occasion.by,
                    why=occasion.why,
                    learnt_ms=occasion.learnt_ms,
                )
                self._changed()
                log.info(about_zone(zone.name, "the bundle %s judges from now on"), bundle.identity[:12])
            else:
                log.error(about_zone(zone.name, "not %s, the bundle stays: %s"), occasion.event, said)
            return self._audit.append(
                occasion.event if error is None else "failed",
                commandId=occasion.command_id,
                bundle=bundle.identity,
                reason=said,
                **zone.noted,
                **occasion.noted,
            )
        except (OSError, AuditError) as failure:
            forgotten = about_zone(zone.name, "after the next start the configured bundle may judge again: %s")
            log.error(forgotten, failure)  # noqa: TRY400 - the message says it all
            return None
