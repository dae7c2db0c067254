"""One station, put together from its configuration and run until its camera ends or it is told to stop."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from agent.active_alert import ActiveAlert
from agent.archive import Archive
from agent.camera import open_camera
from agent.decision import end
from agent.edge_nodes import edge_nodes_of
from agent.errors import PublisherDiedError
from agent.loop import inspect
from agent.metrics import LoopMetrics
from agent.publisher import Publisher, Station
from agent.recorder import Copies, Recorder
from agent.records import Evaluation, alert_state_payload, health_payload, info_payload, new_id
from agent.settings import broker_settings, engine_deployment, open_outbox, rules_of, station_topics
from agent.sole_user import sole_user
from agent.sources import kind_of, without_password
from calibration.backends import choose, serving
from calibration.bundle import Bundle, check_golden, open_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.camera import Camera
    from agent.config import AgentConfig
    from agent.decision import Rules
    from agent.look import Seen
    from agent.outbox import Outbox
    from agent.records import Payload
    from agent.speaker import Speaker
    from calibration.backends import Serving
    from calibration.engine import Engine

log = logging.getLogger(__name__)

_LAST_RECORDS_S = 0.5  # with a broker that hangs it takes a second more: the whole must end within two
_BUILD_LOG_EVERY_S = 10.0
_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")


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
        results: Frames with a verdict.
        verdicts: How many of each verdict.
        dropped: Frames without one, by reason.
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
    bundle = open_bundle(config.bundle)
    topics = station_topics(config.station)
    settings = broker_settings(config)
    rules = rules_of(config, bundle)
    choice = choose(config.engine.backend)
    metrics = LoopMetrics()
    camera = open_camera(
        config.camera.source, config.camera.playback, config.camera.frames_per_s, loop=config.camera.loop
    )
    with ExitStack() as stack:
        stack.enter_context(sole_user(config.state_dir))
        deployment = engine_deployment(config, bundle, _BuildLog())
        served = stack.enter_context(serving(choice, deployment, lambda engine: check_golden(bundle, engine)))
        log.info("the network runs on %s (%s)", served.engine.backend, served.reason)
        outbox = stack.enter_context(open_outbox(config, "outbox.sqlite"))
        stack.enter_context(camera)
        stop.reaches(camera)
        active_alert = ActiveAlert(config.state_dir / "active_alert.json")
        archive = Archive(config.state_dir / "archive", config.archive.max_mib) if config.archive.enabled else None
        info = _info(config, bundle, rules, served)
        station = Station(
            session_id=new_id(),
            version=version("shiftwatch"),
            state=lambda: _state(camera, metrics, outbox),
            info=lambda: info,
            alert_state=lambda: _alert_state(active_alert),
            health=lambda: _health(config, metrics, camera, outbox, archive),
        )
        publisher = Publisher(settings, topics, outbox, station)
        edge_nodes = edge_nodes_of(config, settings, station, stack)
        recorder = Recorder(
            Copies(outbox, *edge_nodes),
            archive,
            publisher,
            topics,
            active_alert,
            region=bundle.preprocess.region,
            grid=bundle.manifest.backbone.grid,
            threshold=rules.threshold,
            is_simulated=kind_of(config.camera.source) == "path",
        )
        # Left in the opposite order: the last pictures, then the last records, then the camera.
        speakers = [publisher, *edge_nodes]
        for speaker in speakers:
            speaker.start()
        stack.callback(_stop, speakers)
        if archive is not None:
            stack.enter_context(archive)
        _end_left_over_alert(active_alert, recorder)
        log.info("watching %s as %s", without_password(str(config.camera.source)), topics.root)
        _inspect(camera, bundle, served.engine, rules, recorder, metrics, speakers)
    return Summary(
        camera.captured, metrics.results, dict(metrics.verdicts), camera.dropped, publisher.published, outbox.depth()
    )


def _inspect(  # noqa: PLR0913, PLR0917 - the parts of a station, each once
    camera: Camera,
    bundle: Bundle,
    engine: Engine,
    rules: Rules,
    recorder: Recorder,
    metrics: LoopMetrics,
    speakers: Sequence[Speaker],
) -> None:
    def heartbeat(seen: Seen) -> None:
        metrics.note(seen.times_ms, seen.decision.verdict.evaluation, seen.fault)
        if not all(speaker.alive for speaker in speakers):
            raise PublisherDiedError(
                what="a thread that talks to the broker has died; the line hears nothing",
                remedy="the log above tells why; start again, records wait in the outbox",
            )

    state = inspect(camera, bundle.preprocess, engine, rules, recorder, heartbeat)
    event, _ = end(state, _now_ms())
    if event is not None:
        # Nobody watches any more: whoever waits for the end of this alert would wait for ever.
        recorder.record_alert(event, _now_ms())


def _stop(speakers: Sequence[Speaker]) -> None:
    for speaker in speakers:  # all at the same time: each may have to wait for a broker that hangs
        speaker.ask_to_stop(_LAST_RECORDS_S)
    for speaker in speakers:
        speaker.stop()


def _end_left_over_alert(active_alert: ActiveAlert, recorder: Recorder) -> None:
    left_over = active_alert.left_over
    if left_over is not None:
        log.warning("alert %s was active when the agent died; ending it", left_over.alert_id)
        recorder.record_alert(left_over.ended(_now_ms()), _now_ms())


class _BuildLog:
    """Tells now and then how far an engine that is built on this device has come."""

    def __init__(self) -> None:
        self._told_s = float("-inf")

    def __call__(self, step: str, done: int, total: int) -> None:
        if time.monotonic() - self._told_s >= _BUILD_LOG_EVERY_S:
            self._told_s = time.monotonic()
            log.info("preparing the network: %s, %d of %d", step, done, total)


def _info(config: AgentConfig, bundle: Bundle, rules: Rules, served: Serving) -> Payload:
    calibrated_at = datetime.fromisoformat(bundle.manifest.created_at)
    return info_payload(
        bundle_hash=bundle.identity,
        threshold=rules.threshold,
        false_reject_rate=bundle.manifest.working_point.false_reject_rate,
        backend=served.engine.backend,
        backend_reason=served.reason,
        calibrated_at_ms=round(calibrated_at.timestamp() * 1000),
        camera=without_password(str(config.camera.source)),
    )


def _state(camera: Camera, metrics: LoopMetrics, outbox: Outbox) -> tuple[str, str]:
    if camera.state != "running":
        return camera.state, "the camera gives no frames"
    if metrics.fault is not None:
        return "fault", metrics.fault
    return ("running", "") if outbox.fault is None else ("fault", f"results cannot be stored: {outbox.fault}")


def _alert_state(active_alert: ActiveAlert) -> Payload:
    alert = active_alert.alert
    return alert_state_payload(timestamp_ms=_now_ms(), active=[] if alert is None else [alert])


def _health(
    config: AgentConfig, metrics: LoopMetrics, camera: Camera, outbox: Outbox, archive: Archive | None
) -> Payload:
    kept_out = {} if archive is None else {f"archive: {reason}": n for reason, n in archive.dropped.items()}
    return health_payload(
        timestamp_ms=_now_ms(),
        fps=metrics.frames_per_s(),
        p50_ms=metrics.percentiles(50),
        p99_ms=metrics.percentiles(99),
        captured=camera.captured,
        results=metrics.results,
        last_result_age_ms=metrics.last_result_age_ms(),
        camera=camera.state,
        dropped={**camera.dropped, **outbox.dropped, **kept_out},
        outbox_depth=outbox.depth(),
        disk_free_bytes=_disk_free_bytes(config.state_dir),
        temperature_c=_temperature_c(),
        drift=None,
    )


def _disk_free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0  # a card that was pulled, say, has room for nothing


def _temperature_c() -> float | None:
    try:
        return int(_TEMPERATURE.read_text()) / 1000
    except (OSError, ValueError):
        return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
