"""The command ``rollback``: back to a bundle that was active before, while the inspection runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.bundle_swap import SwapReason
from agent.commands.dispatcher import final_ack

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.commands.bundle_swap import BundleSwap
    from agent.commands.dispatcher import Command, Effect
    from agent.commands.schema import RollbackArguments
    from agent.messages.records import Payload
    from agent.zones.station_controls import StationControls
    from agent.zones.versions import Version
    from agent.zones.zone import Zone
    from calibration.errors import ShiftwatchError


class RollbackCommand:
    """Prepares the other bundle on a thread of its own.

    Args:
        controls: The zones.
        swaps: Activates the bundle.
        follow_up: Receives the final acknowledgement.
    """

    def __init__(self, controls: StationControls, swaps: BundleSwap, follow_up: Callable[[Payload], None]) -> None:
        self._controls = controls
        self._swaps = swaps
        self._follow_up = follow_up

    def prepare(self, command: Command, arguments: RollbackArguments) -> Effect:
        """See `agent.commands.dispatcher.Action`."""
        zone = self._controls.zone(arguments.zone)
        version = zone.versions.before(zone.active.bundle.identity, arguments.bundle)

        def start() -> None:
            self._swaps.reserve()
            threading.Thread(target=self._work, args=(command, zone, version), name="rollback", daemon=True).start()

        return start

    def _work(self, command: Command, zone: Zone, version: Version) -> None:
        def ended(error: ShiftwatchError | None, audit_hash: str | None) -> None:
            self._follow_up(final_ack(command, error, audit_hash))

        reason = SwapReason("rolled back", command.command_id, command.by, "rolled back")
        self._swaps.activate(zone, Path(version.path), version.identity, reason, ended)
