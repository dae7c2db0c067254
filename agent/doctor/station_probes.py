"""Checks one station by its configuration: state folder, live page, camera, broker, bundles and networks."""

from __future__ import annotations

import itertools
import math
import secrets
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.camera.sources import source_from
from agent.config.exposure import exposures
from agent.config.model import load
from agent.doctor.finding import Finding, fault, ok, warn_if
from agent.doctor.machine import disk_finding
from agent.errors import BrokerRefusedError, BrokerUnreachableError, CameraError, ConfigError, PageError
from agent.from_config import broker_settings, camera_settings, engine_deployment, web_token
from agent.mqtt.connect import connect
from agent.state_lock import is_in_use
from agent.state_owner import acting_as, owner_of, unusable, with_owner
from agent.web.server_socket import check_packages, listening, url
from calibration.bundle.bundle import check_golden, open_bundle
from calibration.deployment.backends import choose_backend, open_engine
from calibration.errors import BundleError, DatasetError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.camera.camera_settings import CameraSettings
    from agent.camera.sources import Source
    from agent.config.model import AgentConfig
    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image

_FIRST_FRAME_S = 10.0
_SETTLING_S, _COUNTING_S = 0.5, 2.0
_MEASURING_S, _FEWEST_RUNS = 2.0, 20
_ROOMY_BYTES = 8192


def records(config: str) -> Iterator[Finding]:
    """Check the disk, whether an agent is running, and whether the live page can be served."""
    loaded = load(Path(config))
    with acting_as(owner_of(loaded.state_dir)):  # root would find that it may write anything
        yield from _state_findings(loaded.state_dir)
    if loaded.web.enabled:
        yield _page_finding(loaded)


def _state_findings(state_dir: Path) -> Iterator[Finding]:
    yield disk_finding(state_dir)
    remedy = f"give the folder and its files to the agent's user: chown -R USER {state_dir}"
    for path in unusable(state_dir):
        if path != state_dir:  # its finding is that of the disk
            yield Finding("state files", "fault", f"this user may not use {with_owner(path)}", remedy)
    try:
        running = is_in_use(state_dir)
    except OSError as error:
        remedy = "run the doctor as the agent's user: sudo -u USER"
        yield Finding("agent", "warning", f"cannot find out whether one is running: {error}", remedy)
    else:
        yield ok("agent", f"{'running' if running else 'none is running'} on {state_dir}")


def secrets_and_access(config: str) -> Iterator[Finding]:
    """Check who else may read or write the station's secrets, and whom its page is served to."""
    file = Path(config)
    found = list(exposures(load(file), file))
    yield from (Finding("secrets", "warning", each.what, each.remedy) for each in found)
    if not found:
        yield ok("secrets", "no other user may read or write them, and the page is not served to the network")


def _page_finding(config: AgentConfig) -> Finding:
    """Check the live page's packages, token and port. A running agent holds the port already."""
    web = config.web
    try:
        check_packages()
        token = web_token(config)
        if not _is_running(config):
            listening(web.host, web.port).close()
    except (PageError, ConfigError) as error:
        return fault("page", error)
    return ok("page", f"{url(web.host, web.port)}, {'read-only' if token is None else 'changes need its token'}")


def camera(config: str) -> Iterator[Finding]:
    """Check size and rate of the frames. A live camera that a running agent uses is left alone."""
    loaded = load(Path(config))
    settings = camera_settings(loaded.camera)
    source = source_from(loaded.camera.source, loaded.camera.frames_per_s, settings)
    if source.live and _is_running(loaded):
        yield ok("camera", f"{source.name}: not opened, because the running agent uses it")
        return
    try:
        source.open()
        frame = _first_frame(source)
        rate = _rate(source)
    except CameraError as error:
        yield fault("camera", error)
        return
    finally:
        source.close()  # some network cameras serve one client, and notice only after a minute that it is gone
    rows, columns = frame.shape[:2]
    yield from _setting_findings(source, settings, rows, columns)
    if source.is_rescaled:
        what = (
            "its frames are not JPEG: a change of resolution while it runs cannot be noticed, since OpenCV scales them"
        )
        remedy = "keep it at one resolution, and calibrate with what it sends; or use the camera's MJPEG stream"
        yield Finding("camera stream", "warning", what, remedy)
    size = {"width": float(columns), "height": float(rows)}
    found = f"{source.name}: {columns}x{rows} pixels"
    if source.live:
        yield ok("camera", f"{found}, {rate:.1f} frames/s over {_COUNTING_S:g} s", **size, frames_per_s=rate)
    elif loaded.camera.playback == "fast":
        yield ok("camera", f"{found}, a file, every frame as fast as possible", **size)
    else:
        yield ok("camera", f"{found}, a file at {rate:g} frames/s", **size, frames_per_s=rate)


def _setting_findings(source: Source, settings: CameraSettings, rows: int, columns: int) -> Iterator[Finding]:
    remedy = "see what it offers: v4l2-ctl --list-formats-ext --list-ctrls-menus"
    for refused in source.refused_settings:
        yield Finding("camera setting", "warning", f"not accepted: {refused}", remedy)
    if source.live and not settings.fits(rows, columns):
        what = f"its frames have {columns}x{rows} pixels, not {settings.width}x{settings.height}, and would be dropped"
        remedy = "correct camera.width and camera.height, or the camera's own settings"
        yield Finding("camera size", "fault", what, remedy)


def _is_running(config: AgentConfig) -> bool:
    try:
        return is_in_use(config.state_dir)
    except OSError:
        return False


def _first_frame(source: Source) -> Image:
    deadline_s = time.monotonic() + _FIRST_FRAME_S
    while time.monotonic() < deadline_s and source.grab():
        frame = source.retrieve()
        if frame is not None:
            return frame
    raise CameraError(
        what=f"{source.name} opens, but delivers no frame within {_FIRST_FRAME_S:g} s",
        remedy="check its cable and power, and that its format is one that OpenCV reads",
    )


def _rate(source: Source) -> float:
    if not source.live:
        return source.frames_per_s
    _grabs_per_s(source, _SETTLING_S)  # a stream delivers its buffered frames in a burst
    return _grabs_per_s(source, _COUNTING_S)


def _grabs_per_s(source: Source, duration_s: float) -> float:
    start_s = time.monotonic()
    frames = 0
    while time.monotonic() < start_s + duration_s:
        if not source.grab():
            raise CameraError(what=f"{source.name} stops after some frames", remedy="check its cable and its power")
        frames += 1
    return frames / (time.monotonic() - start_s)


def broker(config: str) -> Iterator[Finding]:
    """Check whether the broker accepts a connection, with a client id of its own."""
    try:
        settings = broker_settings(load(Path(config)))
        settings = replace(settings, client_id=f"shiftwatch-doctor-{secrets.token_hex(2)}")
        start_s = time.monotonic()
        connection = connect(settings, None)
    except (ConfigError, BrokerRefusedError, BrokerUnreachableError) as error:
        yield fault("broker", error)
        return
    took_ms = (time.monotonic() - start_s) * 1e3
    connection.close()
    how = f"MQTT {settings.protocol}" + " over TLS" * settings.tls
    tested = f"tested as {settings.client_id!r}, because the station's own client id would disconnect its agent"
    found = f"{settings.address} accepts connections with {how}, in {took_ms:.0f} ms; {tested}"
    yield ok("broker", found, connect_ms=took_ms)
    limit_bytes = connection.limit.size_bytes
    if limit_bytes < _ROOMY_BYTES:
        found = f"the broker takes {limit_bytes} bytes at most: longer messages are shortened or dropped"
        yield Finding("packet size", "warning", found, f"let it take {_ROOMY_BYTES} bytes (mosquitto: max_packet_size)")


def network(
    config: str, frames_per_s: float | None = None, width: float | None = None, height: float | None = None
) -> Iterator[Finding]:
    """Check that each bundle is undamaged, and that its network scores as calibrated and keeps up with the camera.

    Rate and size in pixels are those of the camera; None if unknown.
    """
    loaded = load(Path(config))
    if len(loaded.bundle) == 1:
        (path,) = loaded.bundle.values()
        yield from _zone_findings(loaded, path, frames_per_s, width, height)
        return
    speeds = []
    for zone, path in loaded.bundle.items():
        for finding in _zone_findings(loaded, path, None, width, height):
            speeds += [finding.figures] if "p99_ms" in finding.figures else []
            yield replace(finding, name=f"{finding.name} {zone}")
    if len(speeds) == len(loaded.bundle):
        p50_ms, p99_ms = (sum(speed[name] for speed in speeds) for name in ("p50_ms", "p99_ms"))
        yield speed_finding("speed of all", p50_ms, p99_ms, frames_per_s)


def _zone_findings(
    loaded: AgentConfig, path: Path, frames_per_s: float | None, width: float | None, height: float | None
) -> Iterator[Finding]:
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        yield fault("bundle", error)
        return
    yield _bundle_finding(bundle)
    try:
        if width is not None and height is not None:
            bundle.preprocess(np.zeros((int(height), int(width), 3), np.uint8))
    except DatasetError as error:
        yield fault("region", error)
    try:
        yield from _engine_findings(loaded, bundle, frames_per_s)
    except (EngineError, BundleError) as error:
        yield fault("network", error)


def _bundle_finding(bundle: Bundle) -> Finding:
    manifest = bundle.manifest
    method = f"{manifest.detector.name} on {manifest.backbone.name}, {manifest.images.count} images"
    name = f"{bundle.path.name}, {bundle.identity[:12]}"
    return ok("bundle", f"{name}: {method}, {manifest.created_at[:10]}; all files undamaged")


def _engine_findings(config: AgentConfig, bundle: Bundle, frames_per_s: float | None) -> Iterator[Finding]:
    choice = choose_backend(config.engine.backend)
    deployment = engine_deployment(config, bundle, lambda *_: None)
    if choice.available[0] == "tensorrt" and not any(deployment.cache_dir.glob("*")):
        remedy = "start the agent, which builds one in some minutes; then run the doctor again"
        yield Finding("network", "warning", "not tried: TensorRT has built no engine for it yet", remedy)
        return
    copy = Path(tempfile.mkdtemp()) / "engines"
    if deployment.cache_dir.is_dir():
        shutil.copytree(deployment.cache_dir, copy)
    copied = replace(deployment, cache_dir=copy)
    with open_engine(choice, copied, lambda engine: check_golden(bundle, engine)) as opened:
        engine = opened.engine
        yield ok("network", f"runs on {engine.backend} ({opened.reason})")
        checks = check_golden(bundle, engine)
        worst = max(check.deviation for check in checks)
        tolerance = max(bundle.manifest.golden_tolerance, engine.tolerance)
        found = f"all {len(checks)} have calibration's scores within {worst:.1e} (allowed: {tolerance:g})"
        yield ok("golden frames", found, deviation=worst)
        if _is_running(config):
            found = "not measured: the running agent needs the processor; it reports p50 and p99 in `health`"
            yield ok("speed", found)
        else:
            p50_ms, p99_ms = (float(each) for each in np.percentile(_times_ms(bundle, engine), (50, 99)))
            yield speed_finding("speed", p50_ms, p99_ms, frames_per_s)


def _times_ms(bundle: Bundle, engine: Engine) -> list[float]:
    times_ms: list[float] = []
    end_s = time.monotonic() + _MEASURING_S
    for frame in itertools.cycle(bundle.golden().frames):
        if time.monotonic() >= end_s and len(times_ms) >= _FEWEST_RUNS:
            return times_ms
        start_ns = time.perf_counter_ns()
        engine(frame)
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return times_ms


def speed_finding(name: str, p50_ms: float, p99_ms: float, frames_per_s: float | None) -> Finding:
    """Check whether the network keeps up with the camera; its rate is None if unknown, or if it waits for the agent."""
    found = f"p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms a frame for the network alone"
    interval_ms = math.inf
    if frames_per_s is not None:
        interval_ms = 1000 / frames_per_s
        found += f"; the camera delivers one every {interval_ms:.1f} ms"
    remedy = "frames will be dropped: use a smaller --size or backbone, a faster backend, or fewer frames"
    return warn_if(p99_ms >= interval_ms, name, found, remedy, p50_ms=p50_ms, p99_ms=p99_ms)
