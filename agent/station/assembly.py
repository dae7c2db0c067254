"""The parts of a station: made in the order in which they need each other, then run together."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

from agent.alerts.camera import LOST, CameraState, camera_alert_step
from agent.alerts.store import ActiveAlerts
from agent.audit.log import AuditLog
from agent.belt.part_camera import PartCamera
from agent.camera.shown_source import without_password
from agent.camera.sources import kind_of
from agent.clock import now_ms
from agent.commands.bundle_swap import BundleSwap
from agent.commands.control_socket import ControlSocket
from agent.commands.dispatcher import CommandDispatcher
from agent.commands.handlers import CommandHandlers
from agent.commands.mark import MarkCommand
from agent.commands.rollback import RollbackCommand
from agent.errors import AuditError, PublisherDiedError
from agent.from_config import (
    archive_folder,
    combiner_of,
    open_archive,
    open_history,
    recalibration_plan,
    station_topics,
    trigger_of,
)
from agent.inspection.loop import inspect
from agent.inspection.record_writer import RecordWriter
from agent.inspection.recorder import FanOut, Recorder
from agent.messages.records import new_id
from agent.metrics.loop_metrics import LoopMetrics
from agent.mqtt.live_messages import LiveMessages
from agent.mqtt.publisher import Publisher, Station
from agent.recalibration.command import RecalibrationCommand
from agent.station.edge_nodes import edge_nodes_of
from agent.station.page_state import page_state
from agent.station.prometheus import StatusCollector
from agent.station.settled_state import RUNNING, SettledState
from agent.station.status import StationState, StationStatus
from agent.station.systemd import ServiceManager
from agent.station.web_page import page_of
from agent.trigger.plc_handshake import Handshake
from agent.trigger.standstill import Standstill
from agent.trigger.trigger import BetweenParts, OnCommand, UnlessPaused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.camera import StationCamera
    from agent.config.model import AgentConfig
    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.mqtt.client_thread import BrokerClient
    from agent.mqtt.connect import BrokerSettings
    from agent.outbox.background import BackgroundOutbox
    from agent.station.bundle_loader import BundleLoader
    from agent.trigger.trigger import Trigger
    from agent.zones.station_controls import StationControls
    from agent.zones.zone import Zone

log = logging.getLogger(__name__)

_LAST_RECORDS_S = 0.5  # with a broker that hangs, stopping takes a second more, and must take less than two in all


class Assembly:
    """A whole station, not running yet.

    Args:
        config: Configuration of the station.
        broker: Settings of the connection to the broker.
        token: Token that commands over MQTT must contain; None where they need none.
        loader: Loads the bundles that commands activate.
        camera: Entered already.
        outbox: Open.
        controls: The zones with their active bundles.
        stack: Closes what is opened here.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each once
        self,
        config: AgentConfig,
        broker: BrokerSettings,
        token: str | None,
        loader: BundleLoader,
        camera: StationCamera,
        outbox: BackgroundOutbox,
        controls: StationControls,
        stack: ExitStack,
    ) -> None:
        topics = station_topics(config.station)
        self.camera, self._controls, self.metrics = camera, controls, LoopMetrics()
        self._lost = CameraState()
        settled = SettledState(config.checks.alert_after_s)
        self._records = RecordWriter(lambda: outbox.locked_by)
        state = StationState(
            camera=camera,
            controls=controls,
            metrics=self.metrics,
            outbox=outbox,
            records=self._records,
            settled=settled,
        )
        self._announced_state = state.state()  # the connection begins with it

        # Which frames show a part, and what the controller is answered.
        waits = f"trigger.delay_ms {config.trigger.delay_ms}, trigger.frames_per_part {config.trigger.frames_per_part}"
        self._handshake = Handshake(config.plc.deadline_ms, state.why_no_verdict, waits=waits)
        parts = trigger_of(config.trigger, self._handshake, controls.active_recipes, camera.trigger)
        self._is_triggered_by_line = isinstance(parts, OnCommand)
        self._trigger: Trigger = UnlessPaused(parts, lambda: controls.is_paused)
        self._combine = combiner_of(config.trigger, state.why_no_verdict)

        # What is kept and shown.
        self._archive, self._page = open_archive(config), page_of(config, stack)
        self._history = open_history(config, outbox)
        self._active_alerts = ActiveAlerts(config.state_dir / "active_alert.json")
        self._audit = AuditLog(config.state_dir / "audit.jsonl")
        self._service_manager = ServiceManager()

        # What commands do.
        swaps = self._bundle_swap(loader)
        self._recalibrations = RecalibrationCommand(
            recalibration_plan(config), controls, self._audit, swaps, state=state.state, follow_up=self._follow_up
        )
        commands = self._commands(config, token, parts, swaps)
        self._control_socket = ControlSocket(
            config.state_dir,
            lambda name, text, user: commands.answer(name, text, via="local", user=user),
            lambda: None if self._page is None else self._page.pid,
        )

        # What the station reports about itself, and to whom.
        self.status = self._status(config, outbox, commands, settled)
        station = Station(
            session_id=new_id(),
            version=version("shiftwatch"),
            state=self.status.state,
            info=self.status.info,
            alert_state=self.status.alert_state,
            health=self.status.health,
        )
        standstill = Standstill(config.plc.deadline_ms) if self._is_triggered_by_line else None
        self._live_messages = LiveMessages(topics, self._handshake, commands, self._give_up, standstill)
        self.publisher = Publisher(broker, topics, outbox, station, self._live_messages)
        outbox.notify = self._records.notify = self._live_messages.notify = self.publisher.wake
        edge_nodes = edge_nodes_of(config, broker, station, stack)
        self._clients: Sequence[BrokerClient] = (self.publisher, *edge_nodes)
        self._root = topics.root
        self.collector = StatusCollector(self.status, self._clients, topics.root, station.version)
        if self._page is not None:
            self._trigger = BetweenParts(self._trigger, self._page.show_between)
            if isinstance(camera, PartCamera):
                camera.show = self._page.show_between
            self._page.use_state(lambda: page_state(self.status, self._clients))

        # Where results go.
        self._recorder = Recorder(
            FanOut(outbox, *edge_nodes, *(each for each in (self._page, self._history) if each is not None)),
            self._archive,
            self._handshake,
            self.publisher,
            topics,
            self._active_alerts,
            is_simulated=kind_of(config.camera.source) == "path",
            write=self._records.write,
        )

    def _bundle_swap(self, loader: BundleLoader) -> BundleSwap:
        in_loop = loader.backends.belongs_to_thread
        return BundleSwap(self._audit, loader.load, in_loop=in_loop, changed=self._announce_change)

    def _commands(self, config: AgentConfig, token: str | None, parts: Trigger, swaps: BundleSwap) -> CommandDispatcher:
        handlers = CommandHandlers(
            self._controls,
            parts if isinstance(parts, OnCommand) else None,
            self._handshake,
            RollbackCommand(self._controls, swaps, self._follow_up),
            self._recalibrations.prepare,
            MarkCommand(archive_folder(config) if config.archive.enabled else None, self._follow_up).prepare,
            self._announce_change,
        )
        return CommandDispatcher(handlers.by_name(), self._audit, config.commands.accept, token)

    def _status(
        self, config: AgentConfig, outbox: BackgroundOutbox, commands: CommandDispatcher, settled: SettledState
    ) -> StationStatus:
        return StationStatus(
            camera=self.camera,
            controls=self._controls,
            metrics=self.metrics,
            outbox=outbox,
            settled=settled,
            records=self._records,
            trigger=self._trigger,
            handshake=self._handshake,
            commands=commands,
            archive=self._archive,
            history=self._history,
            active_alerts=self._active_alerts,
            source=without_password(str(config.camera.source)),
            state_dir=config.state_dir,
            recalibrations=self._recalibrations,
            page_dropped={} if self._page is None else self._page.dropped,
        )

    def run(self) -> None:
        """Inspect until the camera ends or is stopped; then send what can be sent."""
        for zone in self._controls.zones:
            self._record_start(zone)
        with ExitStack() as stack:
            for client in self._clients:
                client.start()
            # Left in the opposite order: after the last images come the last records.
            stack.callback(self._stop_clients)
            stores = (self._history, self._records, self._archive)
            for part in (*stores, self._page, self._recalibrations, self._control_socket):
                if part is not None:
                    stack.enter_context(part)
            self._inspect()

    def _record_start(self, zone: Zone) -> None:
        """Record which bundle is active, if it is not the one before the start."""
        active = zone.active
        threshold = active.recipe.rules.threshold
        try:
            if zone.versions.note(active.bundle, threshold):
                self._audit.append("started", bundle=active.bundle.identity, threshold=threshold, **zone.noted)
        except (OSError, AuditError) as error:
            log.warning("the active bundle cannot be recorded: %s", error)

    def _stop_clients(self) -> None:
        for client in self._clients:  # all at the same time: each may have to wait for a broker that hangs
            client.ask_to_stop(_LAST_RECORDS_S)
        for client in self._clients:
            client.stop()

    def _inspect(self) -> None:
        log.info("watching %s as %s", self.status.source, self._root)
        for alert in self._active_alerts.left_over:
            log.warning("alert %s was active when the agent died; ending it", alert.alert_id)
            self._recorder.record_alert(alert if alert.type == "end" else alert.ended(now_ms()), now_ms())
        recipes = self._controls.recipes_for_next_part
        try:
            state = inspect(self.camera, self._trigger, recipes, self._recorder, self._heartbeat, self._combine)
        finally:
            self._service_manager.stopping()
        for active in (state.alert, state.camera.alert, state.drift, self._lost.alert):
            if active is not None:  # no result can end it any more
                self._recorder.record_alert(active.ended(now_ms()), now_ms())

    def _heartbeat(self, inspection: PartInspection | None) -> None:
        if inspection is not None:
            evaluation = inspection.decision.verdict.evaluation
            self.metrics.note(inspection.times_ms, evaluation, inspection.lasting_fault, inspection.frames)
            if self._page is not None:
                self._page.show(inspection)
            self._recalibrations.note(inspection)
        self.metrics.note_captured(self.camera.captured)
        self._give_up()  # the publisher does it in time, but not while it has no connection
        self._follow_state()
        is_running = not self._controls.is_paused and self.status.observed() == RUNNING
        if inspection is None and not self._is_triggered_by_line and not is_running:
            self._handshake.report_no_view(self.status.why_no_verdict(), now_ms())
            self.publisher.wake()
        if not (self._records.alive and all(client.alive for client in self._clients)):
            raise PublisherDiedError(
                what="a thread that stores or publishes results has died; the line receives nothing",
                remedy="see the log above for the cause; start again, records wait in the outbox",
            )
        self._service_manager.progress(self.status.one_line)

    def _follow_state(self) -> None:
        """Announce the state if it has changed, and begin or end the alert about a lost camera."""
        self.status.observe()
        state = self.status.state()
        if state != self._announced_state:
            self._announced_state = state
            self.publisher.announce("status")
        cause = LOST if self.status.is_camera_lost else None
        event, self._lost = camera_alert_step(self._lost, cause, 0, None, now_ms())
        if event is not None:
            self._recorder.record_alert(event, now_ms())

    def _give_up(self) -> None:
        """From any thread: answer overdue parts without a verdict, and record those that had no frame."""
        for part in self._trigger.withdraw(self._handshake.overdue()):
            self.metrics.missed += 1
            self._recorder.record_missed(part, self.status.why_no_verdict(), self._controls.threshold)

    def _follow_up(self, answer: Payload) -> None:
        """From any thread: send the progress or the end of a command that takes time."""
        self._live_messages.follow_up(answer)
        self.publisher.wake()
        self._control_socket.follow_up(answer)

    def _announce_change(self) -> None:
        """From any thread: a command has changed what the station publishes about itself."""
        self.publisher.announce("status")
        self.publisher.announce("info")
