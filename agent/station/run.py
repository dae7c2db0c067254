"""Runs one station: opens what its configuration names, inspects, and sums up at the end."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
from prometheus_client import CollectorRegistry, ProcessCollector

from agent.config.secret_files import command_token
from agent.errors import StateFolderError
from agent.from_config import broker_settings, open_outbox, station_camera
from agent.metrics.endpoint import serve_metrics
from agent.state_lock import state_lock
from agent.state_owner import name_of, unusable, with_owner
from agent.station.assembly import Assembly
from agent.station.bundle_loader import BundleLoader, configured_bundle
from agent.zones.station_controls import StationControls
from agent.zones.zone import left_over
from calibration.deployment.backends import choose_backend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.camera import StationCamera
    from agent.config.model import AgentConfig
    from agent.messages.records import Evaluation
    from calibration.bundle.bundle import Bundle

log = logging.getLogger(__name__)


class Stop:
    """Stops the station from a signal handler or another thread, at any time."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._camera: StationCamera | None = None

    def request(self) -> None:
        """Stop after the current frame."""
        self.requested.set()
        if self._camera is not None:
            self._camera.stop()

    def reaches(self, camera: StationCamera) -> None:
        """Let a request stop this camera; one made earlier does so at once."""
        self._camera = camera
        if self.requested.is_set():
            camera.stop()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a station did: captured = results + dropped, and every result is published, waits, or was lost.

    Attributes:
        captured: Frames that the camera gave.
        results: Parts with a frame, each with a result.
        verdicts: Number of each verdict on them.
        missed: Parts that had no frame; each has a result, too, which is NotDecidable.
        late: Parts without a verdict within ``plc.deadline_ms``.
        dropped: Frames without a result of their own, by reason.
        waited: Records that earlier runs had left.
        published: Records (results and alerts) that the broker has; also those.
        waiting: Records still in the outbox.
        lost: Records that could not be kept, by reason.
    """

    captured: int
    results: int
    verdicts: dict[Evaluation, int]
    missed: int
    late: int
    dropped: dict[str, int]
    waited: int
    published: int
    waiting: int
    lost: dict[str, int]


def run_station(config: AgentConfig, stop: Stop) -> Summary:
    """Watch one camera until it ends or ``stop`` is requested; then send what can be sent and say goodbye.

    Raises:
        ShiftwatchError: It cannot start: bundle, configuration, camera or outbox; nothing has been changed.
    """
    # Preparing and checking a frame takes a fraction of a millisecond; waking OpenCV's threads takes longer, and the
    # cores are for the network.
    cv2.setNumThreads(1)
    bundles = {zone: configured_bundle(zone, path) for zone, path in config.bundle.items()}
    broker, token = broker_settings(config), command_token(config)
    loader = BundleLoader(config, choose_backend(config.engine.backend), stop.requested)
    camera = station_camera(config)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    with ExitStack() as stack:
        stack.enter_context(state_lock(config.state_dir))
        _refuse_unusable(config.state_dir)
        stack.callback(stop.requested.set)  # ends the build of an engine in another thread
        if config.metrics.enabled:
            stack.enter_context(serve_metrics(config.metrics.host, config.metrics.port, registry))
        controls = _open_zones(loader, bundles, stack)
        outbox = stack.enter_context(open_outbox(config, "outbox.sqlite"))
        waited = outbox.depth()
        stack.enter_context(camera)
        stop.reaches(camera)
        station = Assembly(config, broker, token, loader, camera, outbox, controls, stack)
        registry.register(station.collector)
        station.run()
    return Summary(
        camera.captured,
        station.metrics.results,
        dict(station.metrics.verdicts),
        station.metrics.missed,
        station.status.handshake.dropped["plc_too_late"],
        station.status.frames_dropped(),
        waited,
        outbox.delivered,
        outbox.depth(),
        dict(station.status.records_lost()),
    )


def _refuse_unusable(state_dir: Path) -> None:
    found = unusable(state_dir)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise StateFolderError(
            what=f"user {name_of(os.geteuid())} may not use {with_owner(found[0])}{more}",
            remedy=f"give the folder and its files to the agent's user: chown -R USER {state_dir}",
        )


def _open_zones(loader: BundleLoader, bundles: Mapping[str, Bundle], stack: ExitStack) -> StationControls:
    zones = []
    for name, bundle in bundles.items():
        zones.append(loader.open_zone(name, bundle))
        stack.callback(zones[-1].close)
    for path in left_over(bundles, loader.config.state_dir):
        log.warning("this file belongs to a zone that is no longer configured and is ignored; remove it: %s", path)
    return StationControls(zones)
