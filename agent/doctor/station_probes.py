"""One station, from its configuration: its records, its camera, its broker, its network."""

from __future__ import annotations

import itertools
import secrets
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.camera.sources import source_from
from agent.config.model import load
from agent.doctor.finding import Finding, fault, ok
from agent.doctor.machine import disk_finding
from agent.errors import BrokerRefusedError, BrokerUnreachableError, CameraError, ConfigError, PageError
from agent.mqtt.connect import connect
from agent.settings import broker_settings, camera_settings, engine_deployment, web_token
from agent.state_lock import is_in_use
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
_SETTLING_S, _WATCHING_S = 0.5, 2.0
_MEASURING_S, _FEWEST_RUNS = 2.0, 20


def records(config: str) -> Iterator[Finding]:
    """Whether an agent is running on them, and whether there is room; also whether its page can be served."""
    loaded = load(Path(config))
    state_dir = loaded.state_dir
    yield disk_finding(state_dir)
    try:
        running = is_in_use(state_dir)
    except OSError as error:
        remedy = "ask as the agent's user: sudo -u USER"
        yield Finding("agent", "warning", f"whether one runs cannot be seen: {error}", remedy)
    else:
        yield ok("agent", f"{'running' if running else 'none is running'} on {state_dir}")
    if loaded.web.enabled:
        yield _page_finding(loaded)


def _page_finding(config: AgentConfig) -> Finding:
    """Whether the live page can be served; a running agent serves it already."""
    web = config.web
    try:
        check_packages()
        token = web_token(config)
        if not _runs(config):
            listening(web.host, web.port).close()
    except (PageError, ConfigError) as error:
        return fault("page", error)
    return ok("page", f"{url(web.host, web.port)}, {'read-only' if token is None else 'changes need its token'}")


def camera(config: str) -> Iterator[Finding]:
    """Whether frames come, how large and how often; a camera that a running agent watches is left alone."""
    loaded = load(Path(config))
    settings = camera_settings(loaded.camera)
    source = source_from(loaded.camera.source, loaded.camera.frames_per_s, settings)
    if source.live and _runs(loaded):
        yield ok("camera", f"{source.name}: not opened, the running agent has it")
        return
    try:
        source.open()
        picture = _first_picture(source)
        rate = _rate(source)
    except CameraError as error:
        yield fault("camera", error)
        return
    finally:
        source.close()  # some network cameras serve one viewer, and believe for a minute in one that vanished
    rows, columns = picture.shape[:2]
    yield from _setting_findings(source, settings, rows, columns)
    size = {"width": float(columns), "height": float(rows)}
    found = f"{source.name}: {columns}x{rows} pixels"
    if source.live:
        yield ok("camera", f"{found}, {rate:.1f} frames/s over {_WATCHING_S:g} s", **size, frames_per_s=rate)
    elif loaded.camera.playback == "fast":
        yield ok("camera", f"{found}, a file, each frame of it, unhurried", **size)
    else:
        yield ok("camera", f"{found}, a file at {rate:g} frames/s", **size, frames_per_s=rate)


def _setting_findings(source: Source, settings: CameraSettings, rows: int, columns: int) -> Iterator[Finding]:
    remedy = "ask for what it offers: v4l2-ctl --list-formats-ext --list-ctrls-menus"
    for refused in source.refused_settings:
        yield Finding("camera setting", "warning", f"not taken: {refused}", remedy)
    if source.live and not settings.fits(rows, columns):
        what = f"its frames have {columns}x{rows} pixels, not {settings.width}x{settings.height}, and would be dropped"
        yield Finding("camera size", "fault", what, "mend camera.width and camera.height, or the camera's own settings")


def _runs(config: AgentConfig) -> bool:
    try:
        return is_in_use(config.state_dir)
    except OSError:
        return False


def _first_picture(source: Source) -> Image:
    deadline_s = time.monotonic() + _FIRST_FRAME_S
    while time.monotonic() < deadline_s and source.grab():
        picture = source.retrieve()
        if picture is not None:
            return picture
    raise CameraError(
        what=f"{source.name} opens, but gives no picture within {_FIRST_FRAME_S:g} s",
        remedy="check its cable, its power and that it is set to a format that OpenCV reads",
    )


def _rate(source: Source) -> float:
    if not source.live:
        return source.frames_per_s
    _grabs_per_s(source, _SETTLING_S)  # what a stream has kept back comes in a burst
    return _grabs_per_s(source, _WATCHING_S)


def _grabs_per_s(source: Source, duration_s: float) -> float:
    began_s = time.monotonic()
    frames = 0
    while time.monotonic() < began_s + duration_s:
        if not source.grab():
            raise CameraError(what=f"{source.name} stops after some frames", remedy="check its cable and its power")
        frames += 1
    return frames / (time.monotonic() - began_s)


def broker(config: str) -> Iterator[Finding]:
    """Whether the broker takes us, under a name that throws nobody out."""
    try:
        settings = broker_settings(load(Path(config)))
        settings = replace(settings, client_id=f"shiftwatch-doctor-{secrets.token_hex(2)}")
        began_s = time.monotonic()
        connection = connect(settings, None)
    except (ConfigError, BrokerRefusedError, BrokerUnreachableError) as error:
        yield fault("broker", error)
        return
    took_ms = (time.monotonic() - began_s) * 1e3
    connection.close()
    how = f"MQTT {settings.protocol}" + " over TLS" * settings.tls
    yield ok(
        "broker",
        f"{settings.address} accepts us by {how} in {took_ms:.0f} ms; asked as {settings.client_id!r}, because the "
        "station's own name would throw out its agent",
        connect_ms=took_ms,
    )


def network(
    config: str, frames_per_s: float | None = None, width: float | None = None, height: float | None = None
) -> Iterator[Finding]:
    """Whether each bundle is whole, its network scores rightly here and keeps up with the camera.

    Args:
        config: File of the station.
        frames_per_s: Rate of the camera, where it is known.
        width: Of its frames.
        height: Of its frames.
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
        yield _speed_finding("speed of all", p50_ms, p99_ms, frames_per_s)


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
    return ok(
        "bundle",
        f"{bundle.path.name}, {bundle.identity[:12]}: {manifest.detector.name} on {manifest.backbone.name}, "
        f"{manifest.images.count} images, {manifest.created_at[:10]}; every file as calibration wrote it",
    )


def _engine_findings(config: AgentConfig, bundle: Bundle, frames_per_s: float | None) -> Iterator[Finding]:
    choice = choose_backend(config.engine.backend)
    deployment = engine_deployment(config, bundle, lambda *_: None)
    if choice.available[0] == "tensorrt" and not any(deployment.cache_dir.glob("*")):
        yield Finding(
            "network",
            "warning",
            "not tried: TensorRT has built no engine for it yet",
            "start the agent: its first start builds one, which takes minutes; then ask again",
        )
        return
    copy = Path(tempfile.mkdtemp()) / "engines"
    if deployment.cache_dir.is_dir():
        shutil.copytree(deployment.cache_dir, copy)
    with open_engine(
        choice, replace(deployment, cache_dir=copy), lambda engine: check_golden(bundle, engine)
    ) as served:
        yield ok("network", f"runs on {served.engine.backend}: {served.reason}")
        checks = check_golden(bundle, served.engine)
        worst = max(check.deviation for check in checks)
        tolerance = max(bundle.manifest.golden_tolerance, served.engine.tolerance)
        yield ok(
            "golden frames",
            f"all {len(checks)} score as calibration did, within {worst:.1e} (allowed: {tolerance:g})",
            deviation=worst,
        )
        if _runs(config):
            yield ok("speed", "not measured: the running agent needs the processor; it tells p50 and p99 in `health`")
        else:
            yield speed_finding(_times_ms(bundle, served.engine), frames_per_s)


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


def speed_finding(times_ms: list[float], frames_per_s: float | None) -> Finding:
    """Whether the network keeps up.

    Args:
        times_ms: Of single inferences.
        frames_per_s: Of the camera; None where it is unknown, or waits.
    """
    p50_ms, p99_ms = (float(np.percentile(times_ms, share)) for share in (50, 99))
    return _speed_finding("speed", p50_ms, p99_ms, frames_per_s)


def _speed_finding(name: str, p50_ms: float, p99_ms: float, frames_per_s: float | None) -> Finding:
    figures = {"p50_ms": p50_ms, "p99_ms": p99_ms}
    found = f"p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms a frame, the network alone"
    if frames_per_s is None:
        return ok(name, found, **figures)
    interval_ms = 1000 / frames_per_s
    found = f"{found}; the camera gives one each {interval_ms:.1f} ms"
    if p99_ms < interval_ms:
        return ok(name, found, **figures)
    remedy = "frames will be dropped: a smaller --size or backbone, a faster backend, or fewer frames"
    return Finding(name, "warning", found, remedy, figures)
