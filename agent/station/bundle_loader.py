"""Loads bundles on this device: checks the engine, and applies the configured rules."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.frame_checks.empty_place import REMEDY
from agent.from_config import drift_of, empty_place_of, engine_deployment, frame_checks_of, rules_of
from agent.zones.active_bundle import ActiveBundle
from agent.zones.recipe import Recipe, about_zone
from agent.zones.threshold_curve import threshold_curve
from agent.zones.versions import Versions
from agent.zones.zone import Zone, folder_of, versions_file
from calibration.bundle.bundle import check_golden, open_bundle
from calibration.deployment.backends import open_engine
from calibration.errors import BundleError, EngineError, ShiftwatchError
from calibration.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from threading import Event

    from agent.config.model import AgentConfig
    from agent.drift.drift_watch import DriftWatch
    from agent.frame_checks.camera_checks import FrameChecks
    from agent.frame_checks.empty_place import EmptyPlace
    from agent.messages.records import Payload
    from calibration.bundle.bundle import Bundle
    from calibration.deployment.backends import BackendChoice

log = logging.getLogger(__name__)

_BUILD_LOG_EVERY_S = 10.0


def configured_bundle(zone: str, path: Path) -> Bundle:
    """The bundle that the configuration names for a zone.

    Raises:
        BundleError: It is not usable; names the zone.
    """
    with _naming(zone):
        return open_bundle(path)


@dataclass(frozen=True, slots=True)
class BundleLoader:
    """Loads bundles for the zones of a station.

    Attributes:
        config: Configuration of the station.
        backends: What may run the networks.
        cancel: Set it to stop the build of an engine early.
    """

    config: AgentConfig
    backends: BackendChoice
    cancel: Event

    def open_zone(self, name: str, configured: Bundle) -> Zone:
        """A zone with its active bundle: the configured one, or the one that a command activated instead.

        Raises:
            ShiftwatchError: See `load`.
        """
        folder = folder_of(name, self.config.state_dir)
        folder.mkdir(parents=True, exist_ok=True)
        versions = Versions(versions_file(folder), configured.identity)
        active = self.load(first_bundle(configured, versions, name), name)
        return Zone(name, folder, self.config.bundle[name], versions, active)

    def load(
        self, bundle: Bundle, zone: str, *, may_build: bool = True, instead_of: Bundle | None = None
    ) -> ActiveBundle:
        """Load the network of a bundle and check it on the golden frames.

        Args:
            bundle: The bundle.
            zone: Name of the zone.
            may_build: Whether an engine may be built on this device, which takes minutes.
            instead_of: The active bundle. If the networks differ in their heads alone, its engine makes a build
                needless.

        Raises:
            ConfigError: Its threshold and the configured rules, or its frames and the empty place, do not fit.
            EngineError: No backend loads it.
            ScoreMismatchError: Its scores differ from those of calibration.
        """
        config = self.config
        rules, empty_place = rules_of(config, bundle), empty_place_of(config, bundle)
        deployment = replace(
            engine_deployment(config, bundle, _BuildLog()),
            cancel=self.cancel,
            may_build=may_build,
            predecessor=None if instead_of is None else engine_deployment(config, instead_of, silent).folder,
        )
        with _naming(zone), ExitStack() as stack:
            opened = open_engine(self.backends, deployment, lambda engine: check_golden(bundle, engine))
            active = stack.enter_context(opened)
            log.info(about_zone(zone, "the network runs on %s (%s)"), active.engine.backend, active.reason)
            checks = frame_checks_of(config, bundle)
            drift = drift_of(config, bundle)
            grid = bundle.manifest.backbone.grid
            recipe = Recipe(bundle.preprocess, active.engine, rules, grid, checks, empty_place, drift, zone)
            for warning in (*_disabled_checks(checks, drift), *_doubts(empty_place)):
                log.warning("%s", about_zone(zone, warning))
            curve = self._curve_of(bundle, rules.threshold)
            return ActiveBundle(bundle, recipe, rules.threshold, active.reason, stack.pop_all().close, curve)

    def _curve_of(self, bundle: Bundle, threshold: float) -> Payload | None:
        """Read now, so that the page never waits for the disk; None where there is no page."""
        forecast = bundle.forecast if self.config.web.enabled else None
        if forecast is None:
            return None
        return threshold_curve(forecast, threshold, self.config.recalibration.least_detection)


@contextmanager
def _naming(zone: str) -> Iterator[None]:
    """Adds the zone to the errors of its bundle."""
    try:
        yield
    except (BundleError, EngineError) as error:
        raise type(error)(what=about_zone(zone, error.what), remedy=error.remedy) from error


def _disabled_checks(checks: FrameChecks | None, drift: DriftWatch | None) -> Iterator[str]:
    if checks is None:
        yield "frames are not checked: checks.enabled is false"
    elif checks.off:
        yield f"some camera faults will not be noticed ({_by_reason(checks.off)})"
    if drift is not None and drift.report.off:
        yield f"drift is not noticed in {_by_reason(drift.report.off)}"


def _doubts(empty_place: EmptyPlace | None) -> Iterator[str]:
    if empty_place is not None and empty_place.doubt is not None:
        yield f"{empty_place.doubt}; {REMEDY}"


def _by_reason(off: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = {}
    for name, why in off.items():
        names.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(each)}: {why}" for why, each in names.items())


def first_bundle(configured: Bundle, versions: Versions, zone: str) -> Bundle:
    """The configured bundle, or the one that a command activated instead."""
    commanded = versions.commanded
    if commanded is None:
        return configured
    try:
        bundle = open_bundle(Path(commanded.path))
        if bundle.identity != commanded.identity:
            raise BundleError(what=f"{commanded.path} holds another bundle now", remedy="deploy the old one again")
    except ShiftwatchError as error:
        unusable = about_zone(
            zone, "the bundle that a command activated is not usable, the configured one is active: %s"
        )
        log.error(unusable, error.what)  # noqa: TRY400 - the message says it all
        return configured
    message = about_zone(zone, "the bundle %s is active instead of the configured one, by a command")
    log.info(message, commanded.identity[:12])
    return bundle


class _BuildLog:
    """Logs the progress of an engine that is built on this device, at an interval."""

    def __init__(self) -> None:
        self._logged_s = float("-inf")

    def __call__(self, step: str, done: int, total: int) -> None:
        if time.monotonic() - self._logged_s >= _BUILD_LOG_EVERY_S:
            self._logged_s = time.monotonic()
            log.info("preparing the network: %s, %d of %d", step, done, total)
