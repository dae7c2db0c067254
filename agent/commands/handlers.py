"""The effect of each command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.commands.dispatcher import action
from agent.commands.schema import (
    MarkArguments,
    NoArguments,
    ReasonArguments,
    RecalibrateArguments,
    RollbackArguments,
    ThresholdArguments,
    TriggerArguments,
)
from agent.errors import CommandRefusedError
from agent.messages.records import ResultCode
from agent.trigger.part import Part
from agent.zones.threshold_curve import WIDEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.commands.dispatcher import Action, Command, Effect
    from agent.commands.rollback import RollbackCommand
    from agent.trigger.plc_handshake import Handshake
    from agent.trigger.trigger import OnCommand
    from agent.zones.active_bundle import ActiveBundle
    from agent.zones.station_controls import StationControls


class CommandHandlers:
    """The commands of a station.

    Args:
        controls: What the commands change.
        parts: The trigger by which the line names parts; None where it does not.
        handshake: Answers parts that are named while the station is paused.
        rollback: Handles that command.
        recalibrate: Prepares that command.
        mark: Prepares that command.
        changed: Called when what the station publishes about itself has changed.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each once
        self,
        controls: StationControls,
        parts: OnCommand | None,
        handshake: Handshake,
        rollback: RollbackCommand,
        recalibrate: Callable[[Command, RecalibrateArguments], Effect],
        mark: Callable[[Command, MarkArguments], Effect],
        changed: Callable[[], None],
    ) -> None:
        self._controls = controls
        self._parts = parts
        self._handshake = handshake
        self._rollback = rollback
        self._recalibrate = recalibrate
        self._mark = mark
        self._changed = changed
        self._thresholds: dict[str | None, tuple[ActiveBundle, float | None]] = {}  # last commanded, and for what

    def by_name(self) -> Mapping[str, Action]:
        """All commands, by the last level of their topics."""
        return {
            "trigger": action(TriggerArguments, self._prepare_trigger, changes_station=False),
            "pause": action(ReasonArguments, self._prepare_pause),
            "resume": action(NoArguments, self._prepare_resume),
            "threshold": action(ThresholdArguments, self._prepare_threshold),
            "rollback": action(RollbackArguments, self._rollback.prepare, takes_time=True),
            "recalibrate": action(RecalibrateArguments, self._recalibrate, takes_time=True),
            "mark": action(MarkArguments, self._mark, takes_time=True),
        }

    def _prepare_trigger(self, command: Command, arguments: TriggerArguments) -> Effect:
        parts = self._parts
        if parts is None:
            raise CommandRefusedError(
                what="this station is not triggered by commands",
                remedy="set trigger.source: command in its configuration",
            )
        if command.unread_ms:
            self._handshake.refuse(Part.asked_now(arguments.part_id, command.unread_ms), ResultCode.TOO_LATE)
            raise CommandRefusedError(
                what=f"it may be {command.unread_ms / 1000:.1f} s old: the agent stood still meanwhile",
                remedy="reject the part; the next one can be triggered as usual",
            )
        if self._controls.is_paused:
            part = Part.asked_now(arguments.part_id)
            self._handshake.refuse(part, ResultCode.PAUSED)
            raise CommandRefusedError(what="the station is paused", remedy="give the command resume first")

        def ask() -> None:
            if not parts.ask(arguments.part_id):
                raise CommandRefusedError(
                    what="too many parts are waiting already", remedy="trigger no faster than the camera's frame rate"
                )

        return ask

    def _prepare_pause(self, command: Command, arguments: ReasonArguments) -> Effect | None:
        return self._pause(f"paused{_by(command)}{_because(arguments)}")

    def _prepare_resume(self, _: Command, __: NoArguments) -> Effect | None:
        return self._pause(None)

    def _pause(self, reason: str | None) -> Effect | None:
        def change() -> None:
            self._controls.paused = reason
            self._changed()

        return None if reason == self._controls.paused else change

    def _prepare_threshold(self, _: Command, arguments: ThresholdArguments) -> Effect | None:
        zone = self._controls.zone(arguments.zone)
        base = zone.active.base_threshold
        threshold = arguments.threshold
        if threshold is not None and not base / WIDEST <= threshold <= base * WIDEST:
            raise CommandRefusedError(
                what=f"a threshold of {threshold:g} is more than {WIDEST:g} times away from the calibrated {base:g}",
                remedy=f"give {base / WIDEST:g} to {base * WIDEST:g}, or calibrate again",
            )

        active, last = self._thresholds.get(arguments.zone, (None, None))
        if active is zone.active and last == threshold:
            return None

        def change() -> None:
            try:
                zone.set_threshold(threshold)
            except OSError as error:
                raise CommandRefusedError(
                    what=f"the threshold cannot be kept on disk: {error.strerror}", remedy="free space on its disk"
                ) from error
            self._thresholds[arguments.zone] = (zone.active, threshold)
            self._changed()

        return change


def _by(command: Command) -> str:
    return f" by {command.by}" if command.by else ""


def _because(arguments: ReasonArguments) -> str:
    return f": {arguments.reason}" if arguments.reason else ""
