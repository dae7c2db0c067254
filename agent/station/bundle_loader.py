"""A bundle, served on this device: its engine proved, its rules as configured."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.settings import drift_of, empty_place_of, engine_deployment, frame_checks_of, rules_of
from agent.zones.recipe import Recipe, about_zone
from agent.zones.served import ActiveBundle
from agent.zones.versions import Versions
from agent.zones.zone import Zone, folder_of, versions_file
from calibration.bundle.bundle import check_golden, open_bundle
from calibration.deployment.backends import open_engine
from calibration.errors import BundleError, EngineError, ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.config.model import AgentConfig
    from agent.drift.watch import DriftWatch
    from agent.frame_checks.camera_checks import FrameChecks
    from calibration.bundle.bundle import Bundle
    from calibration.deployment.backends import BackendChoice

log = logging.getLogger(__name__)

_BUILD_LOG_EVERY_S = 10.0


def configured_bundle(zone: str, path: Path) -> Bundle:
    """The bundle that the configuration names for a zone.

    Raises:
        BundleError: It is none, and whose.
    """
    with _naming(zone):
        return open_bundle(path)


def open_zone(config: AgentConfig, choice: BackendChoice, name: str, configured: Bundle) -> Zone:
    """What a zone is inspected with: the configured bundle, or the one that a command chose instead since then.

    Args:
        config: Of the station.
        choice: What may run it.
        name: Of the zone.
        configured: Its bundle.

    Raises:
        ShiftwatchError: As of ``serve``.
    """
    folder = folder_of(name, config.state_dir)
    folder.mkdir(parents=True, exist_ok=True)
    versions = Versions(versions_file(folder), configured.identity)
    served = activate_bundle(config, choice, first_bundle(configured, versions, name), name)
    return Zone(name, folder, config.bundle[name], versions, served)


def activate_bundle(
    config: AgentConfig, choice: BackendChoice, bundle: Bundle, zone: str, progress: Callable[[], object] = lambda: None
) -> ActiveBundle:
    """Load the network of a bundle and prove it on the golden frames.

    Args:
        config: Of the station.
        choice: What may run it.
        bundle: Holds the network.
        zone: Name of what it inspects.
        progress: Called, from any thread, with each step of an engine that is built on this device.

    Raises:
        ConfigError: Its threshold and the configured rules, or its frames and the empty place, do not fit.
        EngineError: No backend loads it.
        ScoreMismatchError: It scores otherwise than calibration did.
    """
    rules, empty_place = rules_of(config, bundle), empty_place_of(config, bundle)
    with _naming(zone), ExitStack() as stack:
        deployment = engine_deployment(config, bundle, _BuildLog(progress))
        served = stack.enter_context(open_engine(choice, deployment, lambda engine: check_golden(bundle, engine)))
        log.info(about_zone(zone, "the network runs on %s (%s)"), served.engine.backend, served.reason)
        checks = frame_checks_of(config, bundle)
        drift = drift_of(config, bundle)
        grid = bundle.manifest.backbone.grid
        recipe = Recipe(bundle.preprocess, served.engine, rules, grid, checks, empty_place, drift, zone)
        for line in _what_is_off(checks, drift):
            log.warning("%s", about_zone(zone, line))
        return ActiveBundle(bundle, recipe, rules.threshold, served.reason, stack.pop_all().close)


@contextmanager
def _naming(zone: str) -> Iterator[None]:
    """What is wrong with a bundle is told with the zone that it inspects."""
    try:
        yield
    except (BundleError, EngineError) as error:
        raise type(error)(what=about_zone(zone, error.what), remedy=error.remedy) from error


def _what_is_off(checks: FrameChecks | None, drift: DriftWatch | None) -> Iterator[str]:
    if checks is None:
        yield "frames are not checked: checks.enabled is false"
    elif checks.off:
        yield f"some camera faults will not be noticed ({_by_reason(checks.off)})"
    if drift is not None and drift.report.off:
        yield f"drift is not noticed in {_by_reason(drift.report.off)}"


def _by_reason(off: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = {}
    for name, why in off.items():
        names.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(each)}: {why}" for why, each in names.items())


def first_bundle(configured: Bundle, versions: Versions, zone: str) -> Bundle:
    """The configured bundle, or the one that a command chose instead since then."""
    commanded = versions.commanded
    if commanded is None:
        return configured
    try:
        bundle = open_bundle(Path(commanded.path))
        if bundle.identity != commanded.identity:
            raise BundleError(what=f"{commanded.path} holds another bundle now", remedy="deploy the old one again")
    except ShiftwatchError as error:
        unserved = about_zone(zone, "the bundle that was commanded does not serve, the configured one does: %s")
        log.error(unserved, error.what)  # noqa: TRY400 - the message says it all
        return configured
    serves = about_zone(zone, "the bundle %s was commanded and serves instead of the configured one")
    log.info(serves, commanded.identity[:12])
    return bundle


class _BuildLog:
    """Tells now and then how far an engine that is built on this device has come."""

    def __init__(self, progress: Callable[[], object]) -> None:
        self._progress = progress
        self._told_s = float("-inf")

    def __call__(self, step: str, done: int, total: int) -> None:
        self._progress()
        if time.monotonic() - self._told_s >= _BUILD_LOG_EVERY_S:
            self._told_s = time.monotonic()
            log.info("preparing the network: %s, %d of %d", step, done, total)
