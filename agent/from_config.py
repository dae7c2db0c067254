"""Turns a configuration into the values that the parts of a station receive."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import cv2

from agent.alerts.defect import Rules
from agent.archive.archive import Archive
from agent.belt.part_camera import PartCamera
from agent.belt.passing_parts import PassingParts
from agent.camera import open_camera
from agent.camera.camera_settings import CameraSettings
from agent.camera.process_camera import Timeouts
from agent.camera.sources import kind_of
from agent.config.secret_files import broker_password
from agent.drift.drift_watch import DriftWatch
from agent.errors import ConfigError
from agent.frame_checks.camera_checks import FrameChecks
from agent.frame_checks.empty_place import EmptyPlace
from agent.inspection.combine import FrameCombiner
from agent.messages.topics import SparkplugTopics, Topics
from agent.mqtt.connect import BrokerSettings
from agent.outbox.background import BackgroundOutbox
from agent.outbox.outbox import Outbox
from agent.recalibration.plan import RecalibrationPlan
from agent.statistics.history import FILE_NAME, History
from agent.trigger.motion import OnMotion
from agent.trigger.passing import OnPassing
from agent.trigger.trigger import EveryFrame, OnCommand
from calibration.bundle.bundle import NETWORK
from calibration.deployment.backends import Deployment
from calibration.deployment.engine_source import engine_folder, fastest_file
from calibration.engine.tensorrt_library import TENSORRT_RTX
from calibration.errors import DatasetError
from calibration.imaging.preprocess import as_bgr8
from calibration.imaging.utf8_name import utf8_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.camera import StationCamera
    from agent.config.camera import CameraConfig
    from agent.config.inspection import StationConfig, TriggerConfig
    from agent.config.model import AgentConfig
    from agent.config.types import Section
    from agent.messages.records import ResultCode
    from agent.trigger.plc_handshake import Handshake
    from agent.trigger.trigger import Trigger
    from agent.zones.recipe import Recipe
    from calibration.bundle.bundle import Bundle
    from calibration.progress import Progress

_RECHECK_MS = 100
_NEWEST = 1000  # records of the outbox: those of a second of the fastest camera
_ONE_PART_S = 1.0  # where each frame is inspected, those of this time may show the same part


_T = TypeVar("_T")


def _from_section(kind: type[_T], section: Section, **more: Any) -> _T:  # noqa: ANN401 - checked by the tests
    """A dataclass from the keys of a section that have the names of its fields, and from ``more``."""
    names = {field.name for field in fields(kind)} & type(section).model_fields.keys()  # type: ignore[arg-type]
    return kind(**{name: getattr(section, name) for name in names - more.keys()}, **more)


def station_topics(station: StationConfig) -> Topics:
    """The topics of a station."""
    levels = (station.enterprise, station.site, station.area, station.line, station.cell, "vision", station.name)
    return Topics("/".join(levels))


def sparkplug_topics(config: AgentConfig) -> SparkplugTopics:
    """The topics of the edge node, made from the station's levels where none are named."""
    station, sparkplug = config.station, config.sparkplug
    levels = (station.enterprise, station.site, station.area, station.line, station.cell)
    return _from_section(
        SparkplugTopics,
        sparkplug,
        group_id=sparkplug.group_id or ":".join(levels),
        edge_node_id=sparkplug.edge_node_id or station.name,
    )


def camera_settings(camera: CameraConfig) -> CameraSettings:
    """What is asked of a live camera."""
    return _from_section(CameraSettings, camera)


def camera_timeouts(camera: CameraConfig) -> Timeouts:
    """How long a live camera may be silent."""
    return Timeouts(open_s=camera.open_timeout_s, read_s=camera.read_timeout_s)


def camera_of(camera: CameraConfig, *, loop: bool) -> StationCamera:
    """The configured camera, to be entered; with ``loop`` a file starts again at its end.

    Raises:
        CameraError: This OpenCV cannot read such a source.
    """
    return open_camera(
        camera.source,
        camera.playback,
        camera.frames_per_s,
        loop=loop,
        settings=camera_settings(camera),
        timeouts=camera_timeouts(camera),
    )


def station_camera(config: AgentConfig) -> StationCamera:
    """The camera of a station; above a belt that does not stop, one whose frames are parts."""
    camera, trigger = camera_of(config.camera, loop=config.camera.loop), config.trigger
    if trigger.part_px is None:
        return camera
    width, height = trigger.part_px
    return PartCamera(camera, PassingParts(is_turned=trigger.turn), (width, height))


def broker_settings(config: AgentConfig) -> BrokerSettings:
    """The address of the broker, and the identity of the station there.

    Raises:
        ConfigError: The password cannot be read.
    """
    mqtt, tls = config.mqtt, config.mqtt.tls
    return _from_section(
        BrokerSettings,
        mqtt,
        client_id=mqtt.client_id or f"shiftwatch-{station_topics(config.station).root.replace('/', '-')}",
        password=broker_password(mqtt),
        tls=tls.enabled,
        ca_file=tls.ca_file,
        certificate_file=tls.cert_file,
        key_file=tls.key_file,
    )


def open_outbox(config: AgentConfig, name: str) -> BackgroundOutbox:
    """An outbox in the state folder, with the configured limits.

    Raises:
        OutboxError: It cannot be opened.
    """
    bounds = config.outbox
    return BackgroundOutbox(config.state_dir / name, bounds.max_records, bounds.max_mib, bounds.max_age_days)


def archive_folder(config: AgentConfig) -> Path:
    """Folder of the archived images."""
    return config.state_dir / "archive"


def open_archive(config: AgentConfig) -> Archive | None:
    """The archive in the state folder; None where none is to be kept."""
    section = config.archive
    if not section.enabled:
        return None
    return Archive(
        archive_folder(config), section.max_mib, max_age_days=section.max_age_days, ok_every=section.ok_every
    )


def open_history(config: AgentConfig, outbox: BackgroundOutbox) -> History | None:
    """The statistics; None where they are off."""
    if not config.statistics.enabled:
        return None
    recorded = Outbox.waiting(outbox, outbox.last_id - _NEWEST, _NEWEST)  # whatever time the disk takes
    history = History(config.state_dir / FILE_NAME, config.statistics.results, recorded)
    outbox.before_forget = history.flush
    return history


def recalibration_plan(config: AgentConfig) -> RecalibrationPlan:
    """The terms of every recalibration."""
    return _from_section(
        RecalibrationPlan,
        config.recalibration,
        archive=archive_folder(config),
        sequential=config.trigger.source == "every_frame",
    )


def rules_of(config: AgentConfig, bundle: Bundle) -> Rules:
    """How verdicts become alerts; the threshold is the bundle's unless another is given."""
    decision = config.decision
    return _from_section(
        Rules,
        decision,
        threshold=decision.threshold or bundle.manifest.working_point.threshold,
        update_every_ms=round(decision.update_every_s * 1000),
        untrusted_after_ms=round(config.checks.alert_after_s * 1000),
    )


def frame_checks_of(config: AgentConfig, bundle: Bundle) -> FrameChecks | None:
    """The checks of each frame; None where they are not enabled."""
    if not config.checks.enabled:
        return None
    # Files may repeat themselves.
    frozen_after = None if kind_of(config.camera.source) == "path" else config.checks.frozen_after
    return FrameChecks(bundle.reference(), bundle.preprocess, frozen_after=frozen_after, recheck_ms=_RECHECK_MS)


def empty_place_of(config: AgentConfig, bundle: Bundle) -> EmptyPlace | None:
    """The recogniser of the empty place; None where no image of it is configured.

    Raises:
        ConfigError: The image cannot be read, or differs in size from the frames that calibration saw.
    """
    path = config.trigger.empty
    if path is None:
        return None
    reference = bundle.reference()
    with utf8_name(path) as name:
        image = cv2.imread(name, cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(problems=[f"trigger.empty: {path} cannot be read as an image"])
    known, (rows, columns) = reference.get("frame_size"), image.shape[:2]
    if known is not None and known.size and tuple(known) != (rows, columns):
        problem = f"{path} has {columns}x{rows} pixels; calibration saw frames of {known[1]}x{known[0]}"
        raise ConfigError(problems=[f"trigger.empty: {problem}"])
    try:
        return EmptyPlace(as_bgr8(image), bundle.preprocess, reference)
    except DatasetError as error:
        raise ConfigError(problems=[f"trigger.empty: {path}: {error.what}"]) from error


def trigger_of(
    trigger: TriggerConfig,
    handshake: Handshake,
    recipes: Callable[[], Sequence[Recipe]],
    asked: Callable[[], object] = lambda: None,
) -> Trigger:
    """The configured trigger; ``asked`` is called when the line names a part."""
    if trigger.source == "command":
        return OnCommand(handshake, trigger.delay_ms, asked)
    if trigger.source == "motion":
        return OnMotion(handshake, recipes, trigger.settled_ms, trigger.unsettled_after_s * 1000)
    if trigger.source == "passing":
        return OnPassing(handshake)
    return EveryFrame(handshake, trigger.every)


def combiner_of(trigger: TriggerConfig, why_fewer: Callable[[], ResultCode]) -> FrameCombiner:
    """How the frames of a part become one verdict."""
    count = trigger.frames_per_part
    return FrameCombiner(count, trigger.combine, trigger.least_decidable or count // 2 + 1, why_fewer)


def drift_of(config: AgentConfig, bundle: Bundle) -> DriftWatch | None:
    """The watch for drift; None where it is not enabled."""
    if not config.drift.enabled:
        return None
    part_every_s = _ONE_PART_S if config.trigger.source == "every_frame" else 0.0
    return DriftWatch(bundle.reference(), rules_of(config, bundle).threshold, part_every_s)


def engine_deployment(config: AgentConfig, bundle: Bundle, progress: Progress) -> Deployment:
    """What engines need to run a bundle on this device; they are kept next to it, if that folder is writable."""
    kept = config.state_dir / "engines"

    def folder(backend: str) -> Path:
        beside = engine_folder(bundle, backend)
        is_writable = os.access(beside if beside.exists() else beside.parent, os.W_OK)
        return beside if is_writable or _is_built_ahead(beside) else kept / beside.name

    fastest = fastest_file(bundle)
    if not os.access(fastest.parent, os.W_OK):
        fastest = kept / f"{bundle.manifest.files[NETWORK][:12]}.fastest.json"
    return Deployment(bundle, config.engine.thread_count(), folder, progress, fastest_file=fastest)


def _is_built_ahead(folder: Path) -> bool:
    """Whether an engine came with the bundle, which need not be written again."""
    return folder.suffix == f".{TENSORRT_RTX.backend}" and folder.exists()
