"""The configuration file of a station; every mistake in it is reported at once.

Only the command lines, `station`, `doctor` and `settings` see these models; other modules receive values.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from agent.camera.shown_source import without_password
from agent.camera.sources import kind_of
from agent.config import loader
from agent.config.camera import CameraConfig
from agent.config.inspection import (
    ChecksConfig,
    CommandsConfig,
    DecisionConfig,
    DriftConfig,
    PlcConfig,
    RecalibrationConfig,
    StationConfig,
    TriggerConfig,
)
from agent.config.services import (
    ArchiveConfig,
    EngineConfig,
    LogConfig,
    MetricsConfig,
    MqttConfig,
    OutboxConfig,
    SparkplugConfig,
    StatisticsConfig,
    WebConfig,
)
from agent.config.types import Bundles, FilePath, Section

if TYPE_CHECKING:
    from typing_extensions import Self


class AgentConfig(Section):
    """The whole file; one per camera."""

    bundle: Bundles = Field(
        description="Folder of the calibrated bundle; several zones of the frame may each have their own."
    )
    state_dir: FilePath = Field(
        default=Path("state"),
        validate_default=True,
        description="Folder for `outbox.sqlite`, `archive/`, `bundles/` made here, and `engines/` if the bundle's "
        "folder is not writable.",
    )
    station: StationConfig = StationConfig()
    camera: CameraConfig
    trigger: TriggerConfig = TriggerConfig()
    decision: DecisionConfig = DecisionConfig()
    checks: ChecksConfig = ChecksConfig()
    drift: DriftConfig = DriftConfig()
    mqtt: MqttConfig = MqttConfig()
    plc: PlcConfig = PlcConfig()
    commands: CommandsConfig = CommandsConfig()
    recalibration: RecalibrationConfig = RecalibrationConfig()
    sparkplug: SparkplugConfig = SparkplugConfig()
    engine: EngineConfig = EngineConfig()
    archive: ArchiveConfig = ArchiveConfig()
    outbox: OutboxConfig = OutboxConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    metrics: MetricsConfig = MetricsConfig()
    web: WebConfig = WebConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _one_threshold_for_one_zone(self) -> Self:
        if self.decision.threshold is not None and len(self.bundle) > 1:
            problem = (
                "decision.threshold is one number, but each zone has scores of its own; remove it, and calibrate with "
                "another --false-reject-rate, or give the command threshold with the zone"
            )
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _one_image_for_each_command(self) -> Self:
        if self.camera.trigger == "software" and (self.trigger.source != "command" or self.trigger.delay_ms):
            problem = (
                "camera.trigger is software: the camera takes an image when the line names a part, at once; "
                "set trigger.source: command and remove trigger.delay_ms, or remove camera.trigger"
            )
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _deadline_after_delay(self) -> Self:
        delay_ms, deadline_ms = self.trigger.delay_ms, self.plc.deadline_ms
        if self.trigger.source == "command" and delay_ms >= deadline_ms:
            problem = (
                f"trigger.delay_ms {delay_ms} is not below plc.deadline_ms {deadline_ms}: both begin with the trigger, "
                "so the deadline of every part passes before its frame is taken; raise plc.deadline_ms, and the "
                "controller's own time-out with it, or trigger later and lower trigger.delay_ms"
            )
            raise ValueError(problem)
        return self


def load(path: Path) -> AgentConfig:
    """The configuration in a YAML file; relative paths in it start at the file's folder.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has unknown keys or wrong values; lists all of them.
    """
    return loader.load_model(AgentConfig, path)


def missing_files(config: AgentConfig) -> list[str]:
    """Files and folders that the configuration names and that do not exist, each as ``key: path``."""
    return [f"{key}: {without_password(str(path))}" for key, path in named_paths(config).items() if not path.exists()]


def named_paths(config: AgentConfig) -> dict[str, Path]:
    """Files and folders that the station reads, by dotted key; not ``state_dir``, which it creates."""
    named: dict[str, Path | None] = {
        **{f"bundle.{zone}" if zone else "bundle": path for zone, path in config.bundle.items()},
        "mqtt.password_file": config.mqtt.password_file,
        "mqtt.tls.ca_file": config.mqtt.tls.ca_file,
        "mqtt.tls.cert_file": config.mqtt.tls.cert_file,
        "mqtt.tls.key_file": config.mqtt.tls.key_file,
        "commands.token_file": config.commands.token_file,
        "trigger.empty": config.trigger.empty,
        "web.token_file": config.web.token_file,
    }
    source = config.camera.source
    if isinstance(source, str) and kind_of(source) == "path":
        named["camera.source"] = Path(source)
    return {key: path for key, path in named.items() if path is not None}


def reference() -> str:
    """Every key as a Markdown table, for README.md in this folder."""
    return loader.markdown_table(AgentConfig)


def example() -> str:
    """A file to start from; it loads as it is."""
    return _EXAMPLE


_EXAMPLE = """\
# Shiftwatch: one station. Relative paths start at the folder of this file. Every key:
# agent/config/README.md, or `shiftwatch-agent config --reference`.

bundle: ./bundle                 # made by shiftwatch-calibrate

camera:
  source: 0                      # or rtsp://..., a GStreamer pipeline, a video, an image folder

station:                         # topic root: enterprise/site/area/line/cell/vision/name
  line: "1"                      # numbers in quotes
  name: station

mqtt:
  host: localhost
  # username: station
  # password_file: ./password    # the password itself never stands here
  # tls:
  #   enabled: true

decision:
  raise_after: 1                 # NotOK results in a row that begin an alert
  clear_after: 3                 # clear results in a row that end it

archive:
  max_mib: 2048                  # images of results; the oldest are removed first
"""
