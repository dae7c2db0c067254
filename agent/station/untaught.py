"""A station without a bundle: the line and the broker see that it is not taught, and every part is rejected."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

from agent.audit.log import AuditLog
from agent.camera.shown_source import without_password
from agent.clock import now_ms
from agent.commands.dispatcher import CommandDispatcher, action
from agent.commands.schema import TriggerArguments
from agent.config.secret_files import command_token
from agent.errors import CommandRefusedError
from agent.from_config import broker_settings, open_outbox, station_topics
from agent.messages.payloads import AlertState, Health, Info
from agent.messages.records import ResultCode, new_id
from agent.mqtt.live_messages import LiveMessages
from agent.mqtt.publisher import Publisher, Station
from agent.station.systemd import ServiceManager
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Handshake
from calibration.bundle.bundle import open_bundle
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent.commands.dispatcher import Command, Effect
    from agent.config.model import AgentConfig

log = logging.getLogger(__name__)

NOT_TAUGHT = "not taught"
_REASON = "no bundle yet: teach it with `shiftwatch-agent setup`, or copy a bundle to where the configuration names one"
_LOOK_EVERY_S = 1.0
_LOOKS_BEFORE_LOG = 10
_LAST_MESSAGES_S = 0.5


def has_bundles(config: AgentConfig) -> bool:
    """Whether there is something where the configuration names bundles; it may be damaged."""
    return any(path.exists() for path in config.bundle.values())


class UntaughtStation:
    """Publishes the state, and answers triggers without a verdict, from enter to exit; the state folder is locked."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._is_triggered = config.trigger.source == "command"
        self._handshake = Handshake(config.plc.deadline_ms, lambda: ResultCode.NOT_TAUGHT)
        self._service_manager = ServiceManager()
        self._resources = ExitStack()
        self._look_at_s = float("-inf")
        self._looks = 0

    def __enter__(self) -> Self:
        """Connect to the broker, and keep trying; records of earlier runs are sent.

        Raises:
            ShiftwatchError: Password, token or outbox cannot be read.
        """
        config = self._config
        topics = station_topics(config.station)
        trigger = action(TriggerArguments, self._refuse, changes_station=False)
        audit = AuditLog(config.state_dir / "audit.jsonl")
        commands = CommandDispatcher({"trigger": trigger}, audit, config.commands.accept, command_token(config))
        live = LiveMessages(topics, self._handshake, commands, self._handshake.overdue)
        station = Station(
            session_id=new_id(),
            version=version("shiftwatch"),
            state=lambda: (NOT_TAUGHT, _REASON),
            info=lambda: Info(camera=without_password(str(config.camera.source))).payload(),
            alert_state=lambda: AlertState(timestamp_ms=now_ms(), active=()).payload(),
            health=lambda: Health(timestamp_ms=now_ms(), fps=0.0, camera="closed").payload(),
        )
        with ExitStack() as stack:
            outbox = stack.enter_context(open_outbox(config, "outbox.sqlite"))
            self._publisher = Publisher(broker_settings(config), topics, outbox, station, live)
            outbox.notify = live.notify = self._publisher.wake
            self._publisher.start()
            stack.callback(self._publisher.stop)
            stack.callback(self._publisher.ask_to_stop, _LAST_MESSAGES_S)
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye to the broker."""
        self._resources.close()

    def look(self) -> bool:
        """Call it several times a second; returns whether all bundles have come meanwhile, and are whole."""
        if not self._is_triggered:
            self._handshake.report_no_view(ResultCode.NOT_TAUGHT, now_ms())
            self._publisher.wake()
        self._service_manager.progress(lambda: f"{NOT_TAUGHT}: {_REASON}")
        if time.monotonic() < self._look_at_s or not has_bundles(self._config):
            return False
        self._look_at_s = time.monotonic() + _LOOK_EVERY_S
        return self._are_whole()

    def _are_whole(self) -> bool:
        """Whether the bundles are; one that is not may still be copied, and is logged only after a while."""
        self._looks += 1
        try:
            for path in self._config.bundle.values():
                open_bundle(path)
        except ShiftwatchError as error:
            if self._looks == _LOOKS_BEFORE_LOG:
                log.warning("waiting for the rest: %s", error.one_line)
            return False
        return True

    def _refuse(self, _: Command, arguments: TriggerArguments) -> Effect | None:
        self._handshake.refuse(Part.asked_now(arguments.part_id), ResultCode.NOT_TAUGHT)
        raise CommandRefusedError(what="the station is not taught yet", remedy="teach it: shiftwatch-agent setup")
