"""What a configuration means: the values that the parts of a station receive."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from agent.alerts.defect import Rules
from agent.archive.archive import Archive
from agent.camera.camera_settings import CameraSettings
from agent.camera.process_camera import Timeouts
from agent.camera.sources import kind_of
from agent.drift.watch import DriftWatch
from agent.errors import ConfigError
from agent.frame_checks.camera_checks import FrameChecks
from agent.frame_checks.empty_place import EmptyPlace
from agent.inspection.combine import FrameCombiner
from agent.messages.topics import SparkplugTopics, Topics
from agent.mqtt.connect import BrokerSettings
from agent.outbox.outbox import Outbox
from agent.recalibration.plan import RecalibrationPlan
from agent.trigger.motion import OnMotion
from agent.trigger.trigger import EveryFrame, OnCommand
from calibration.deployment.backends import Deployment
from calibration.deployment.tensorrt import engine_folder
from calibration.errors import DatasetError
from calibration.imaging.preprocess import as_bgr8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.config.inspection import CameraConfig, StationConfig, TriggerConfig
    from agent.config.model import AgentConfig
    from agent.config.services import MqttConfig
    from agent.messages.records import ResultCode
    from agent.trigger.plc_handshake import Handshake
    from agent.trigger.trigger import Trigger
    from agent.zones.recipe import Recipe
    from calibration.bundle.bundle import Bundle
    from calibration.progress import Progress

_HEADER_TEXT = r"[A-Za-z0-9._~+/=-]{8,200}"

_UNHURRIED_MS = 100


def station_topics(station: StationConfig) -> Topics:
    """The topics of a station."""
    levels = (station.enterprise, station.site, station.area, station.line, station.cell, "vision", station.name)
    return Topics("/".join(levels))


def sparkplug_topics(config: AgentConfig) -> SparkplugTopics:
    """The topics of the edge node, made from the station's levels where none are named."""
    station, ids = config.station, config.sparkplug
    levels = (station.enterprise, station.site, station.area, station.line, station.cell)
    return SparkplugTopics(
        group_id=ids.group_id or ":".join(levels),
        edge_node_id=ids.edge_node_id or station.name,
        device_id=ids.device_id,
        primary_host_id=ids.primary_host_id,
    )


def camera_settings(camera: CameraConfig) -> CameraSettings:
    """What is asked of a live camera."""
    return CameraSettings(
        width=camera.width,
        height=camera.height,
        format=camera.format,
        exposure=camera.exposure,
        white_balance=camera.white_balance,
        gain=camera.gain,
        buffer_frames=camera.buffer_frames,
    )


def camera_timeouts(camera: CameraConfig) -> Timeouts:
    """How long a live camera may be silent."""
    return Timeouts(open_s=camera.open_timeout_s, read_s=camera.read_timeout_s)


def broker_settings(config: AgentConfig) -> BrokerSettings:
    """Where the broker is and who we are.

    Raises:
        ConfigError: The password cannot be read.
    """
    mqtt = config.mqtt
    return BrokerSettings(
        host=mqtt.host,
        port=mqtt.port,
        client_id=mqtt.client_id or f"shiftwatch-{station_topics(config.station).root.replace('/', '-')}",
        username=mqtt.username,
        password=_password(mqtt),
        protocol=mqtt.protocol,
        keepalive_s=mqtt.keepalive_s,
        tls=mqtt.tls.enabled,
        ca_file=mqtt.tls.ca_file,
        certificate_file=mqtt.tls.cert_file,
        key_file=mqtt.tls.key_file,
    )


def command_token(config: AgentConfig) -> str | None:
    """What commands over MQTT must bring; None where they need nothing.

    Raises:
        ConfigError: The file cannot be read, or is empty.
    """
    token = read_secret(config.commands.token_file, "commands.token_file")
    if token == "":
        raise ConfigError(
            problems=[f"commands.token_file: {config.commands.token_file} is empty; write a token into it"]
        )
    return token


def web_token(config: AgentConfig) -> str | None:
    """What changes from the live page must bring; None leaves it read-only.

    Raises:
        ConfigError: The file cannot be read, or holds what is no token.
    """
    token = read_secret(config.web.token_file, "web.token_file")
    if token is not None and not re.fullmatch(_HEADER_TEXT, token):
        raise ConfigError(
            problems=[f"web.token_file: {config.web.token_file} holds no token; write 8 or more letters and digits"]
        )
    return token


def _password(mqtt: MqttConfig) -> str | None:
    if mqtt.password_credential is not None:
        return read_secret(_credential(mqtt.password_credential), "mqtt.password_credential")
    return read_secret(mqtt.password_file, "mqtt.password_file")


def _credential(name: str) -> Path:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        problem = "there are none outside systemd; add LoadCredential= to the unit, or give password_file"
        raise ConfigError(problems=[f"mqtt.password_credential: {problem}"])
    return Path(folder, name)


def read_secret(file: Path | None, key: str) -> str | None:
    """The password or token in a file, if there is one.

    Raises:
        ConfigError: The file, named by ``key``, cannot be read.
    """
    if file is None:
        return None
    try:
        return file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(problems=[f"{key}: cannot read {file}: {error}"]) from error


def open_outbox(config: AgentConfig, name: str) -> Outbox:
    """An outbox in the state folder, with the bounds that hold for all of them.

    Raises:
        OutboxError: It cannot be opened.
    """
    bounds = config.outbox
    return Outbox(config.state_dir / name, bounds.max_records, bounds.max_mib, bounds.max_age_days)


def archive_folder(config: AgentConfig) -> Path:
    """Where the pictures are."""
    return config.state_dir / "archive"


def open_archive(config: AgentConfig) -> Archive | None:
    """The pictures in the state folder; None where none are to be kept."""
    kept = config.archive
    if not kept.enabled:
        return None
    return Archive(
        archive_folder(config),
        kept.max_mib,
        max_age_days=kept.max_age_days,
        ok_every=kept.ok_every,
    )


def recalibration_terms(config: AgentConfig) -> RecalibrationPlan:
    """How the station learns on."""
    section = config.recalibration
    return RecalibrationPlan(
        archive=archive_folder(config),
        parts=section.parts,
        old_weight=section.old_weight,
        shadow_parts=section.shadow_parts,
        min_detection=section.min_detection,
        quiet_s=section.quiet_s,
        keep_bundles=section.keep_bundles,
        sequential=config.trigger.source == "every_frame",
    )


def rules_of(config: AgentConfig, bundle: Bundle) -> Rules:
    """How verdicts become alerts; the threshold is the bundle's unless another is given."""
    decision = config.decision
    return Rules(
        threshold=decision.threshold or bundle.manifest.working_point.threshold,
        raise_after=decision.raise_after,
        raise_within=decision.raise_within,
        clear_after=decision.clear_after,
        clear_ratio=decision.clear_ratio,
        update_every_ms=round(decision.update_every_s * 1000),
        untrusted_after_ms=round(config.checks.alert_after_s * 1000),
    )


def frame_checks_of(config: AgentConfig, bundle: Bundle) -> FrameChecks | None:
    """What frames are held against; None where nobody wants it."""
    if not config.checks.enabled:
        return None
    # Files that are played again and again repeat themselves by right.
    frozen_after = None if kind_of(config.camera.source) == "path" else config.checks.frozen_after
    reference = bundle.reference()
    return FrameChecks(reference, bundle.preprocess, frozen_after=frozen_after, unhurried_ms=_UNHURRIED_MS)


def empty_place_of(config: AgentConfig, bundle: Bundle) -> EmptyPlace | None:
    """What the empty place looks like; None where nobody has shown it.

    Raises:
        ConfigError: The picture cannot be read, or is not as the frames that calibration saw.
    """
    path = config.trigger.empty
    if path is None:
        return None
    picture, reference = cv2.imread(str(path), cv2.IMREAD_COLOR), bundle.reference()
    if picture is None:
        raise ConfigError(problems=[f"trigger.empty: {path} cannot be read as a picture"])
    known, (rows, columns) = reference.get("frame_size"), picture.shape[:2]
    if known is not None and known.size and tuple(known) != (rows, columns):
        problem = f"{path} has {columns}x{rows} pixels; calibration saw frames of {known[1]}x{known[0]}"
        raise ConfigError(problems=[f"trigger.empty: {problem}"])
    try:
        return EmptyPlace(as_bgr8(picture), bundle.preprocess, reference)
    except DatasetError as error:
        raise ConfigError(problems=[f"trigger.empty: {path}: {error.what}"]) from error


def trigger_of(trigger: TriggerConfig, handshake: Handshake, recipes: Callable[[], Sequence[Recipe]]) -> Trigger:
    """Which frames show a part."""
    if trigger.source == "command":
        return OnCommand(handshake, trigger.delay_ms)
    if trigger.source == "motion":
        return OnMotion(handshake, recipes, trigger.settled_ms, trigger.unsettled_after_s * 1000)
    return EveryFrame(handshake, trigger.every)


def combining_of(trigger: TriggerConfig, why_fewer: Callable[[], ResultCode]) -> FrameCombiner:
    """What the frames of a part say together."""
    count = trigger.frames_per_part
    return FrameCombiner(count, trigger.combine, trigger.least_decidable or count // 2 + 1, why_fewer)


def drift_of(config: AgentConfig, bundle: Bundle) -> DriftWatch | None:
    """What good parts are held against; None where nobody wants it."""
    return DriftWatch(bundle.reference(), rules_of(config, bundle).threshold) if config.drift.enabled else None


def engine_deployment(config: AgentConfig, bundle: Bundle, progress: Progress) -> Deployment:
    """What engines need to run a bundle on this device; they are kept beside it, where that is allowed."""
    beside = engine_folder(bundle)
    kept = beside if os.access(beside if beside.exists() else beside.parent, os.W_OK) else config.state_dir / "engines"
    return Deployment(bundle, config.engine.thread_count(), kept, progress)
