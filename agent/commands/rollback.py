"""Back to a bundle that was served before, while the inspection goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.bundle_swap import Occasion
from agent.commands.dispatcher import last_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.commands.bundle_swap import Exchange
    from agent.commands.dispatcher import Command, Do
    from agent.commands.schema import RollbackArguments
    from agent.messages.records import Payload
    from agent.zones.controls import Controls
    from agent.zones.versions import Version
    from agent.zones.zone import Zone
    from calibration.errors import ShiftwatchError


class Rollback:
    """Prepares the other bundle on a thread of its own.

    Args:
        exchange: Brings it in.
        follow_up: Told how a command went on.
    """

    def __init__(self, controls: Controls, exchange: Exchange, follow_up: Callable[[Payload], None]) -> None:
        self._controls = controls
        self._exchange = exchange
        self._follow_up = follow_up

    def prepare(self, command: Command, arguments: RollbackArguments) -> Do:
        """See `commands.Action`."""
        zone = self._controls.zone(arguments.zone)
        version = zone.versions.before(zone.served.bundle.identity, arguments.bundle)

        def begin() -> None:
            self._exchange.reserve()
            threading.Thread(target=self._work, args=(command, zone, version), name="rollback", daemon=True).start()

        return begin

    def _work(self, command: Command, zone: Zone, version: Version) -> None:
        def ended(error: ShiftwatchError | None, audit_hash: str | None) -> None:
            self._follow_up(last_word(command, error, audit_hash))

        occasion = Occasion("rolled back", command.command_id, command.by, "rolled back")
        self._exchange.let_judge(zone, Path(version.path), version.identity, occasion, ended)
