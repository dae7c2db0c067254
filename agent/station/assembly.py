"""The parts of a station and how they hear of each other."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING

from agent.alerts.store import ActiveAlerts
from agent.camera.sources import kind_of, without_password
from agent.clock import now_ms
from agent.commands.bundle_swap import BundleSwap
from agent.commands.control_socket import ControlSocket
from agent.commands.dispatcher import CommandDispatcher
from agent.commands.handlers import CommandHandlers
from agent.commands.mark import Marking
from agent.commands.rollback import Rollback
from agent.errors import PublisherDiedError
from agent.inspection.loop import inspect
from agent.inspection.recorder import FanOut, Recorder
from agent.messages.records import new_id
from agent.metrics.loop_metrics import LoopMetrics
from agent.mqtt.live_messages import LiveMessages
from agent.mqtt.publisher import Publisher, Station
from agent.recalibration.command import RecalibrationCommand
from agent.settings import archive_folder, combining_of, open_archive, recalibration_terms, station_topics, trigger_of
from agent.station.bundle_loader import activate_bundle
from agent.station.page_state import state_of
from agent.station.prometheus import StatusCollector
from agent.station.sparkplug import edge_nodes_of
from agent.station.status import StationStatus
from agent.station.systemd import ServiceManager
from agent.station.web_page import page_of
from agent.trigger.plc_handshake import Handshake
from agent.trigger.trigger import OnCommand, UnlessPaused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from agent.audit.log import AuditLog
    from agent.camera import Camera
    from agent.config.model import AgentConfig
    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.mqtt.client_thread import BrokerClient
    from agent.mqtt.connect import BrokerSettings
    from agent.outbox.outbox import Outbox
    from agent.zones.controls import StationControls
    from calibration.deployment.backends import BackendChoice

log = logging.getLogger(__name__)


class Assembly:
    """A whole station, not running yet.

    Args:
        settings: Of the broker.
        token: That commands must bring; None where they need none.
        camera: Entered already.
        outbox: Open.
        controls: With the bundle that judges first.
        stack: Closes what is opened here.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each once
        self,
        config: AgentConfig,
        settings: BrokerSettings,
        token: str | None,
        camera: Camera,
        outbox: Outbox,
        controls: StationControls,
        audit: AuditLog,
        choice: BackendChoice,
        stack: ExitStack,
    ) -> None:
        topics = station_topics(config.station)
        self.camera = camera
        self.metrics = LoopMetrics()
        self._controls = controls
        self._announced_state: tuple[str, str] | None = None
        self._triggers = config.trigger.source == "command"
        self._handshake = Handshake(config.plc.deadline_ms, lambda: self.reports.why_no_verdict())  # noqa: PLW0108 - made below
        parts = trigger_of(config.trigger, self._handshake, lambda: controls.judging)
        self._trigger = UnlessPaused(parts, lambda: controls.paused is not None)
        self._combining = combining_of(config.trigger, lambda: self.reports.why_no_verdict())  # noqa: PLW0108 - made below
        self.archive = open_archive(config)
        self.page = page_of(config, stack)
        self._active_alerts = ActiveAlerts(config.state_dir / "active_alert.json")
        exchange = BundleSwap(
            audit,
            # An engine that is built in the loop takes minutes; its steps are progress, too.
            lambda bundle, zone: activate_bundle(config, choice, bundle, zone.name, self._service_manager.progress),
            in_loop="tensorrt" in choice.available,
            changed=self._changed,
        )
        self.recalibrations = RecalibrationCommand(
            recalibration_terms(config),
            controls,
            audit,
            exchange,
            state=lambda: self.reports.state(),  # noqa: PLW0108 - made below
            follow_up=self._follow_up,
        )
        actions = CommandHandlers(
            controls,
            parts if isinstance(parts, OnCommand) else None,
            self._handshake,
            Rollback(controls, exchange, self._follow_up),
            self.recalibrations.prepare,
            Marking(archive_folder(config) if config.archive.enabled else None, self._follow_up).prepare,
            self._changed,
        )
        commands = CommandDispatcher(actions.by_name(), audit, config.commands.accept, token)
        self.reports = StationStatus(
            camera=camera,
            trigger=self._trigger,
            controls=controls,
            handshake=self._handshake,
            commands=commands,
            metrics=self.metrics,
            outbox=outbox,
            archive=self.archive,
            active_alerts=self._active_alerts,
            source=without_password(str(config.camera.source)),
            state_dir=config.state_dir,
            page_dropped={} if self.page is None else self.page.dropped,
            recalibrations=self.recalibrations,
        )
        self.control_socket = ControlSocket(
            config.state_dir,
            lambda name, text, user: commands.answer(name, text, via="local", user=user),
            lambda: None if self.page is None else self.page.pid,
        )
        self._dialogue = LiveMessages(topics, self._handshake, commands, self._give_up)
        station = Station(
            session_id=new_id(),
            version=version("shiftwatch"),
            state=self.reports.state,
            info=self.reports.info,
            alert_state=self.reports.alert_state,
            health=self.reports.health,
        )
        self.publisher = Publisher(settings, topics, outbox, station, self._dialogue)
        edge_nodes = edge_nodes_of(config, settings, station, stack)
        self.speakers: Sequence[BrokerClient] = (self.publisher, *edge_nodes)
        pages = () if self.page is None else (self.page,)
        self._recorder = Recorder(
            FanOut(outbox, *edge_nodes, *pages),
            self.archive,
            self._handshake,
            self.publisher,
            topics,
            self._active_alerts,
            is_simulated=kind_of(config.camera.source) == "path",
        )
        self._service_manager = ServiceManager(self.reports.one_line)
        self.figures = StatusCollector(self.reports, self.speakers, topics.root, station.version)
        self._root = topics.root
        if self.page is not None:
            self.page.use_state(lambda: state_of(self.reports, self.speakers))

    def run(self) -> None:
        """Inspect until the camera ends or is stopped."""
        log.info("watching %s as %s", self.reports.source, self._root)
        self._end_left_over_alerts()
        try:
            state = inspect(
                self.camera, self._trigger, self._controls.recipes, self._recorder, self._heartbeat, self._combining
            )
        finally:
            self._service_manager.stopping()
        for alert in (state.alert, state.camera.alert, state.drift):
            if alert is not None:
                # Nobody watches any more: whoever waits for the end of this alert would wait for ever.
                self._recorder.record_alert(alert.ended(now_ms()), now_ms())

    def _heartbeat(self, seen: PartInspection | None) -> None:
        if seen is not None:
            self.metrics.note(seen.times_ms, seen.decision.verdict.evaluation, seen.fault, seen.frames)
            if self.page is not None:
                self.page.show(seen)
            self.recalibrations.note(seen)
        self._give_up()  # the publisher does it in time, but not while it has no line
        state = self.reports.state()
        if state != self._announced_state:
            self._announced_state = state
            self.publisher.announce("status")
        if seen is None and not self._triggers and state[0] != "running":
            self._handshake.tell_blind(self.reports.why_no_verdict(), now_ms())
            self.publisher.wake()
        if not all(speaker.alive for speaker in self.speakers):
            raise PublisherDiedError(
                what="a thread that talks to the broker has died; the line hears nothing",
                remedy="the log above tells why; start again, records wait in the outbox",
            )
        self._service_manager.progress()

    def _give_up(self) -> None:
        """From any thread: parts without a verdict in time; those without a frame get their record here."""
        for part in self._trigger.withdraw(self._handshake.overdue()):
            self._recorder.record_missed(part, self.reports.why_no_verdict(), self._controls.threshold)

    def _follow_up(self, answer: Payload) -> None:
        """From any thread: a command that took its time is done, or has failed."""
        self._dialogue.follow_up(answer)
        self.publisher.wake()
        self.control_socket.follow_up(answer)

    def _changed(self) -> None:
        """From any thread: a command has changed what the station says of itself."""
        self.publisher.announce("status")
        self.publisher.announce("info")

    def _end_left_over_alerts(self) -> None:
        for left_over in self._active_alerts.left_over:
            log.warning("alert %s was active when the agent died; ending it", left_over.alert_id)
            ended = left_over if left_over.type == "end" else left_over.ended(now_ms())
            self._recorder.record_alert(ended, now_ms())
