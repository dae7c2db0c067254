"""Checks the bundles of a station: undamaged, scoring as calibrated, and fast enough for camera and deadline."""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.config.model import load
from agent.doctor.finding import Finding, fault, ok, warn_if
from agent.doctor.live_frames import kept_frames, live_findings
from agent.doctor.system import is_agent_running
from agent.doctor.timing import Pace, timing_findings
from agent.errors import ConfigError
from agent.frame_checks.empty_place import REMEDY
from agent.from_config import empty_place_of, engine_deployment
from calibration.bundle.bundle import check_golden, open_bundle
from calibration.deployment.backends import choose_backend, open_engine
from calibration.errors import BundleError, DatasetError, EngineError
from calibration.plain_text import counted
from calibration.statistics.threshold import HIGHEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.config.model import AgentConfig
    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image

_MEASURING_S, _FEWEST_RUNS = 2.0, 20


def network(
    config: str,
    frames_per_s: float | None = None,
    width: float | None = None,
    height: float | None = None,
    frames: str | None = None,
) -> Iterator[Finding]:
    """Check that each bundle is undamaged, knows what the camera shows, scores as calibrated, and is fast enough.

    Rate and size in pixels are those of the camera; None if unknown. Its probe has kept frames in the folder
    ``frames``.
    """
    loaded = load(Path(config))
    seen = kept_frames(Path(frames)) if frames else []
    is_single = len(loaded.bundle) == 1
    speeds = []
    for zone, path in loaded.bundle.items():
        for finding in _zone_findings(loaded, path, frames_per_s if is_single else None, width, height, seen):
            speeds += [finding.figures] if "p99_ms" in finding.figures else []
            yield finding if is_single else replace(finding, name=f"{finding.name} {zone}")
    p50_ms, p99_ms = (sum(speed[name] for speed in speeds) for name in ("p50_ms", "p99_ms"))
    is_timed = len(speeds) == len(loaded.bundle)
    if is_timed and not is_single:
        yield speed_finding("speed of all", p50_ms, p99_ms, frames_per_s)
    yield from timing_findings(loaded, Pace(frames_per_s, p50_ms, p99_ms) if is_timed else Pace(frames_per_s))


def _zone_findings(  # noqa: PLR0913, PLR0917 - what the camera's probe has found
    loaded: AgentConfig,
    path: Path,
    frames_per_s: float | None,
    width: float | None,
    height: float | None,
    seen: Sequence[Image],
) -> Iterator[Finding]:
    if not path.exists():
        remedy = "teach it in a browser: shiftwatch-agent setup; or copy a bundle there"
        yield Finding("bundle", "fault", f"there is none at {path}: the station is not taught", remedy)
        return
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        yield fault("bundle", error)
        return
    yield _bundle_finding(bundle)
    try:
        if width is not None and height is not None:
            bundle.preprocess(np.zeros((int(height), int(width), 3), np.uint8))
        yield from _empty_place_findings(loaded, bundle)
    except DatasetError as error:
        yield fault("region", error)
    except ConfigError as error:
        yield fault("empty place", error)
    try:
        yield from _engine_findings(loaded, bundle, frames_per_s, seen)
    except (EngineError, BundleError) as error:
        yield fault("network", error)


def _empty_place_findings(config: AgentConfig, bundle: Bundle) -> Iterator[Finding]:
    place = empty_place_of(config, bundle)
    if place is not None and place.doubt is not None:
        yield Finding("empty place", "warning", f"{place.doubt}; {place.summary}", REMEDY)
    elif place is not None:
        yield ok("empty place", place.summary)


def _bundle_finding(bundle: Bundle) -> Finding:
    manifest = bundle.manifest
    if manifest.working_point.method == HIGHEST:
        return Finding(
            "bundle",
            "warning",
            f"{bundle.path.name}: learned from too few images to promise a false-reject rate ({manifest.images.count})",
            "calibrate again with 10 images of good parts or more, better a hundred",
        )
    method = f"{manifest.detector.name} on {manifest.backbone.name}, {counted(manifest.images.count, 'image')}"
    name = f"{bundle.path.name}, {bundle.identity[:12]}"
    return ok("bundle", f"{name}: {method}, {manifest.created_at[:10]}; all files undamaged")


def _engine_findings(
    config: AgentConfig, bundle: Bundle, frames_per_s: float | None, seen: Sequence[Image]
) -> Iterator[Finding]:
    choice = choose_backend(config.engine.backend)
    deployment = engine_deployment(config, bundle, lambda *_: None)
    if choice.available[0] == "tensorrt" and not any(deployment.folder("tensorrt").glob("*")):
        remedy = "start the agent, which builds one in some minutes; then run the doctor again"
        yield Finding("network", "warning", "not tried: TensorRT has built no engine for it yet", remedy)
        return
    copy = Path(tempfile.mkdtemp())
    for backend in choice.available:
        if deployment.folder(backend).is_dir():
            shutil.copytree(deployment.folder(backend), copy / backend)
    fastest = copy / "fastest.json"
    if deployment.fastest_file is not None and deployment.fastest_file.is_file():
        shutil.copy(deployment.fastest_file, fastest)
    copied = replace(deployment, folder=copy.joinpath, fastest_file=fastest)
    with open_engine(choice, copied, lambda engine: check_golden(bundle, engine)) as opened:
        engine = opened.engine
        yield ok("network", f"runs on {engine.backend} ({opened.reason})")
        checks = check_golden(bundle, engine)
        worst = max(check.deviation for check in checks)
        tolerance = max(bundle.manifest.golden_tolerance, engine.tolerance)
        found = f"all {len(checks)} have calibration's scores within {worst:.1e} (allowed: {tolerance:g})"
        yield ok("golden frames", found, deviation=worst)
        if seen:
            yield from live_findings(config, bundle, engine, seen)
        elif is_agent_running(config.state_dir):
            yield ok("live frames", "not compared with the taught images, because the running agent uses the camera")
        if is_agent_running(config.state_dir):
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
