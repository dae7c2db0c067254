"""Activates another bundle while the inspection runs: checks it, swaps it in between two frames, records it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agent.errors import AuditError, CommandRefusedError
from agent.zones.recipe import about_zone
from calibration.bundle.bundle import open_bundle
from calibration.errors import BundleError, ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.audit.log import AuditLog
    from agent.messages.payloads import CommandId
    from agent.zones.active_bundle import ActiveBundle
    from agent.zones.zone import Zone
    from calibration.bundle.bundle import Bundle

log = logging.getLogger(__name__)


class LoadBundle(Protocol):
    """See `agent.station.bundle_loader.BundleLoader.load`."""

    def __call__(
        self, bundle: Bundle, zone: str, *, may_build: bool = True, instead_of: Bundle | None = None
    ) -> ActiveBundle:
        """See there."""


class SwapReason(NamedTuple):
    """Why a bundle is swapped.

    Attributes:
        event: Its name in the audit log after success.
        command_id: The command that caused it.
        by: Who gave the command.
        why: Text for people.
        learnt_ms: See `agent.zones.versions.Version`.
        noted: More fields for the audit log.
    """

    event: str
    command_id: CommandId | None
    by: str | None
    why: str | None = None
    learnt_ms: int | None = None
    noted: Mapping[str, object] = {}


class BundleSwap:
    """Swaps bundles, one at a time.

    Args:
        audit: Receives an entry for each swap, whether it succeeds or fails.
        load: Loads the engine of a bundle for a zone, given by name, and checks it on the golden frames.
        in_loop: An engine must be loaded by the thread that uses it. It is built and checked beside the loop, which
            then loads what was built; the frames of those seconds are dropped.
        changed: Called when another bundle is active.
    """

    def __init__(
        self,
        audit: AuditLog,
        load: LoadBundle,
        *,
        in_loop: bool,
        changed: Callable[[], None],
    ) -> None:
        self._audit = audit
        self.load = load
        self._in_loop = in_loop
        self._changed = changed
        self._busy = threading.Lock()

    def reserve(self) -> None:
        """Exclude other swaps until `activate`, which must follow, has ended.

        Raises:
            CommandRefusedError: Another swap is under way.
        """
        if not self._busy.acquire(blocking=False):
            raise CommandRefusedError(
                what="another bundle is being activated", remedy="wait for its acknowledgement on cmd/ack"
            )

    def activate(  # noqa: PLR0913, PLR0917 - each once
        self,
        zone: Zone,
        path: Path,
        identity: str,
        reason: SwapReason,
        ended: Callable[[ShiftwatchError | None, str | None], object],
        allowed: Callable[[], object] = lambda: None,
    ) -> None:
        """Check a bundle and offer it to the loop, which swaps it in before its next part.

        Args:
            zone: What it will inspect.
            path: Folder of the bundle.
            identity: Expected hash of the bundle.
            reason: For the audit log and the list of versions.
            ended: Called with the error, if any, and the hash of the audit log entry; on the loop's thread, or on this
                one if the bundle is not usable.
            allowed: Called on the loop's thread just before the swap; a ShiftwatchError leaves everything as it was.
        """
        swap = _Swap(self, zone, reason, ended, allowed)
        try:
            swap.bundle = _opened(path, identity)
            loaded = self.load(swap.bundle, zone.name, instead_of=zone.active.bundle)
            if self._in_loop:
                loaded.close()
            else:
                swap.loaded = loaded
        except ShiftwatchError as error:
            swap.done(error)
        else:
            zone.offer(swap)

    def finish(self, zone: Zone, reason: SwapReason, error: ShiftwatchError | None) -> str | None:
        """Record the outcome and admit the next swap; the hash of the audit log entry, if there is one."""
        audit_hash = self._record(zone, reason, error)
        self._busy.release()
        return audit_hash

    def _record(self, zone: Zone, reason: SwapReason, error: ShiftwatchError | None) -> str | None:
        bundle = zone.active.bundle
        failure = None if error is None else error.one_line
        try:
            if failure is None:
                threshold = zone.active.recipe.rules.threshold
                zone.versions.note(bundle, threshold, by=reason.by, why=reason.why, learnt_ms=reason.learnt_ms)
                self._changed()
                log.info(about_zone(zone.name, "the bundle %s is now active"), bundle.identity[:12])
            else:
                log.error(about_zone(zone.name, "not %s, the bundle stays: %s"), reason.event, failure)
            return self._audit.append(
                reason.event if failure is None else "failed",
                commandId=reason.command_id,
                bundle=bundle.identity,
                reason=failure,
                **zone.noted,
                **reason.noted,
            )
        except (OSError, AuditError) as unwritten:
            message = about_zone(zone.name, "after the next start the configured bundle may be active again: %s")
            log.error(message, unwritten)  # noqa: TRY400 - the message says it all
            return None


@dataclass(slots=True)
class _Swap:
    """One bundle on its way in; the loop's thread calls `load` and `done`, see `agent.zones.zone.Offer`."""

    swaps: BundleSwap
    zone: Zone
    reason: SwapReason
    ended: Callable[[ShiftwatchError | None, str | None], object]
    allowed: Callable[[], object]
    bundle: Bundle = field(init=False)
    loaded: ActiveBundle | None = None

    def load(self) -> ActiveBundle:
        try:
            self.allowed()
        except ShiftwatchError:
            if self.loaded is not None:
                self.loaded.close()
            raise
        return self.loaded or self.swaps.load(self.bundle, self.zone.name, may_build=False)

    def done(self, error: ShiftwatchError | None) -> None:
        self.ended(error, self.swaps.finish(self.zone, self.reason, error))


def _opened(path: Path, identity: str) -> Bundle:
    bundle = open_bundle(path)
    if bundle.identity != identity:
        raise BundleError(
            what=f"{path} holds another bundle now",
            remedy="keep each bundle in a folder of its own; deploy the old one again",
        )
    return bundle
