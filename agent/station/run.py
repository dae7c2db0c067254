"""One station, put together from its configuration and run until its camera ends or it is told to stop."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
from prometheus_client import CollectorRegistry, ProcessCollector

from agent.audit.log import AuditLog
from agent.camera import open_camera
from agent.errors import AuditError
from agent.metrics.endpoint import serve_metrics
from agent.settings import broker_settings, camera_settings, camera_timeouts, command_token, open_outbox
from agent.state_lock import state_lock
from agent.station.assembly import Assembly
from agent.station.bundle_loader import configured_bundle, open_zone
from agent.zones.controls import StationControls
from agent.zones.zone import left_over
from calibration.deployment.backends import choose_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.camera import Camera
    from agent.config.model import AgentConfig
    from agent.messages.records import Evaluation
    from agent.mqtt.client_thread import BrokerClient
    from agent.zones.zone import Zone

log = logging.getLogger(__name__)

_LAST_RECORDS_S = 0.5  # with a broker that hangs it takes a second more: the whole must end within two


class Stop:
    """Ends the station from a signal handler or another thread, whatever it is doing."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._camera: Camera | None = None

    def request(self) -> None:
        """End after the frame in hand."""
        self.requested.set()
        if self._camera is not None:
            self._camera.stop()

    def reaches(self, camera: Camera) -> None:
        """From now on a request stops this camera; one made earlier does so at once."""
        self._camera = camera
        if self.requested.is_set():
            camera.stop()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a station did: captured = results + dropped, and every result is published or waits.

    Attributes:
        captured: Frames the camera gave.
        results: Parts with a verdict.
        verdicts: How many of each verdict.
        dropped: Frames without one of their own, by reason.
        published: Records (results and alerts) that the broker has.
        waiting: Records still in the outbox.
    """

    captured: int
    results: int
    verdicts: dict[Evaluation, int]
    dropped: dict[str, int]
    published: int
    waiting: int


def run_station(config: AgentConfig, stop: Stop) -> Summary:
    """Watch one camera until it ends or ``stop`` is requested; then send what can be sent and say goodbye.

    Raises:
        ShiftwatchError: It cannot start: bundle, configuration, camera or outbox; nothing has been changed.
    """
    # Frames are prepared and checked in a fraction of a millisecond: to wake OpenCV's threads takes longer than that,
    # and the cores are for the network.
    cv2.setNumThreads(1)
    configured = {zone: configured_bundle(zone, path) for zone, path in config.bundle.items()}
    settings, token = broker_settings(config), command_token(config)
    choice = choose_backend(config.engine.backend)
    camera = open_camera(
        config.camera.source,
        config.camera.playback,
        config.camera.frames_per_s,
        loop=config.camera.loop,
        settings=camera_settings(config.camera),
        timeouts=camera_timeouts(config.camera),
    )
    with ExitStack() as stack:
        stack.enter_context(state_lock(config.state_dir))
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        if config.metrics.enabled:
            stack.enter_context(serve_metrics(config.metrics.host, config.metrics.port, registry))
        zones = []
        for name, bundle in configured.items():
            zones.append(open_zone(config, choice, name, bundle))
            stack.callback(zones[-1].close)
        for path in left_over(configured, config.state_dir):
            log.warning("what was commanded while the zones were named otherwise judges no more; remove it: %s", path)
        controls = StationControls(zones)
        outbox = stack.enter_context(open_outbox(config, "outbox.sqlite"))
        audit = AuditLog(config.state_dir / "audit.jsonl")
        stack.enter_context(camera)
        stop.reaches(camera)
        assembly = Assembly(config, settings, token, camera, outbox, controls, audit, choice, stack)
        registry.register(assembly.figures)
        for zone in zones:
            _note_start(zone, audit)
        # Left in the opposite order: the last pictures, then the last records, then the camera.
        for speaker in assembly.speakers:
            speaker.start()
        stack.callback(_stop, assembly.speakers)
        for part in (assembly.archive, assembly.page):
            if part is not None:
                stack.enter_context(part)
        with assembly.recalibrations, assembly.control_socket:
            assembly.run()
    counted = assembly.metrics
    return Summary(
        camera.captured,
        counted.results,
        dict(counted.verdicts),
        assembly.reports.frames_dropped(),
        assembly.publisher.published,
        outbox.depth(),
    )


def _note_start(zone: Zone, audit: AuditLog) -> None:
    """What judges from here on, where that is not what judged last: somebody has changed it."""
    served = zone.served
    threshold = served.recipe.rules.threshold
    try:
        if zone.versions.note(served.bundle, threshold):
            audit.append("started", bundle=served.bundle.identity, threshold=threshold, **zone.noted)
    except (OSError, AuditError) as error:
        log.warning("which bundle judges from now on cannot be written down: %s", error)


def _stop(speakers: Sequence[BrokerClient]) -> None:
    for speaker in speakers:  # all at the same time: each may have to wait for a broker that hangs
        speaker.ask_to_stop(_LAST_RECORDS_S)
    for speaker in speakers:
        speaker.stop()
