"""The configuration file: what may stand in it, and every mistake in it told at once.

The models stop at the command line; other modules receive values.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from agent import config_text
from agent.camera.sources import kind_of
from agent.logs import LogFormat

if TYPE_CHECKING:
    from typing_extensions import Self

_PORT, _TLS_PORT = 1883, 8883


def _from_folder(path: object, info: ValidationInfo) -> object:
    """Relative paths start at the folder of the file, so that they mean the same whoever starts the agent."""
    if not isinstance(path, (str, Path)) or path == "":
        return path
    folder = Path((info.context or {}).get("folder", ""))
    return Path(os.path.normpath(folder.absolute() / Path(path).expanduser()))


def _camera_source(source: object, info: ValidationInfo) -> object:
    if isinstance(source, bool) or not isinstance(source, (int, str)) or source == "" or str(source).startswith("-"):
        raise ValueError  # The key's own text tells what is allowed.
    is_path = isinstance(source, str) and kind_of(source) == "path"
    return str(_from_folder(source, info)) if is_path else source


def _topic_level(level: str) -> str:
    if not level.strip() or set(level) & set("/+#\0"):
        raise ValueError  # As above.
    return level


def _protocol(protocol: object) -> object:
    return "5" if type(protocol) is int and str(protocol) == "5" else protocol


def _number_or_auto(setting: object) -> object:
    is_number = isinstance(setting, (int, float)) and not isinstance(setting, bool) and math.isfinite(setting)
    if not is_number and setting is not None and setting != "auto":
        raise ValueError  # As above.
    return float(setting) if isinstance(setting, int) else setting


FilePath: TypeAlias = Annotated[Path, BeforeValidator(_from_folder)]
Level: TypeAlias = Annotated[
    str,
    AfterValidator(_topic_level),
    Field(json_schema_extra={"allowed": "text without / + #, in quotes if it is a number"}),
]
CameraSource: TypeAlias = Annotated[
    int | str,
    BeforeValidator(_camera_source),
    Field(
        json_schema_extra={
            "allowed": "a device number, an rtsp:// or http(s):// URL, a GStreamer pipeline, a video or an image folder"
        }
    ),
]

NumberOrAuto: TypeAlias = Annotated[
    float | Literal["auto"] | None,
    BeforeValidator(_number_or_auto),
    Field(json_schema_extra={"allowed": "a number, or auto"}),
]


class Section(BaseModel):
    """Keys that belong together. Numbers are not taken from text, nor truth values from numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, keys: object) -> object:
        """A section whose lines are all commented out is null in YAML."""
        return {} if keys is None else keys


class StationConfig(Section):
    """Where the station stands: the levels of the topic root."""

    enterprise: Level = Field(default="enterprise", description="Topic level 1.")
    site: Level = Field(default="site", description="Topic level 2.")
    area: Level = Field(default="area", description="Topic level 3.")
    line: Level = Field(default="line", description="Topic level 4.")
    cell: Level = Field(default="cell", description="Topic level 5; `vision` follows it.")
    name: Level = Field(default="station", description="Name of this station, the last topic level.")


class CameraConfig(Section):
    """Where frames come from."""

    source: CameraSource = Field(description="Camera, stream or files.")
    playback: Literal["realtime", "fast"] = Field(
        default="realtime",
        description="Of files: at their own rate, dropping what is late, as a camera does; or each frame, unhurried.",
    )
    frames_per_s: float | None = Field(
        default=None, gt=0, le=1000, description="Rate of files instead of their own; rate asked of a numbered device."
    )
    loop: bool = Field(default=False, description="Start files again at their end.")
    width: int | None = Field(
        default=None,
        ge=1,
        le=16384,
        description="Asked of a device, with `height`; live frames of another are dropped.",
    )
    height: int | None = Field(default=None, ge=1, le=16384, description="As `width`.")
    format: str | None = Field(
        default=None,
        pattern=r"^[ -~]{4}$",
        description="FOURCC asked of a device, such as MJPG or YUYV.",
        json_schema_extra={"allowed": "four characters"},
    )
    exposure: NumberOrAuto = Field(
        default=None, description="Asked of a device, in its driver's unit (mostly 0.1 ms); none leaves it as it is."
    )
    white_balance: NumberOrAuto = Field(default=None, description="Asked of a device, in Kelvin.")
    gain: float | None = Field(default=None, ge=0, description="Asked of a device, in its driver's unit.")
    buffer_frames: int | None = Field(
        default=None,
        ge=1,
        le=10,
        description="Frames that the driver of a device may keep; few are fresh, many smooth.",
    )
    open_timeout_s: float = Field(
        default=10.0, ge=0.5, le=600, description="Of live sources: from opening to the first frame; then it is lost."
    )
    read_timeout_s: float = Field(
        default=2.0, ge=0.1, le=600, description="Of live sources: between two frames; then it is lost, and reopened."
    )

    @model_validator(mode="after")
    def _whole_size(self) -> Self:
        if (self.width is None) != (self.height is None):
            problem = "width and height belong together; give both or neither"
            raise ValueError(problem)
        return self


class TriggerConfig(Section):
    """Which frames show a part."""

    source: Literal["every_frame", "command"] = Field(
        default="every_frame",
        description="Each frame is a part; or the line names each by `cmd/trigger`, and the next frame is its.",
    )
    delay_ms: int = Field(default=0, ge=0, le=60_000, description="From a trigger until its part is before the camera.")


class PlcConfig(Section):
    """The short message for the controller of the line."""

    deadline_ms: int = Field(
        default=100,
        ge=5,
        le=60_000,
        description="After a trigger, or a frame where nobody triggers: then the controller hears `valid: false`.",
    )


class CommandsConfig(Section):
    """What may be commanded over MQTT; on the device itself everything may."""

    accept: list[Literal["trigger", "pause", "resume", "threshold", "rollback"]] = Field(
        default=["trigger", "pause", "resume"], description="Commands that are accepted."
    )
    token_file: FilePath | None = Field(
        default=None, description="File with a token that all of them but `trigger` must bring."
    )


class DecisionConfig(Section):
    """When a score is a defect, and when defects are an alert."""

    threshold: float | None = Field(
        default=None, gt=0, description="Score above which a part is NotOK; else the bundle's."
    )
    raise_after: int = Field(default=1, ge=1, description="NotOK results in a row that begin an alert.")
    clear_after: int = Field(default=3, ge=1, description="Clear results in a row that end it.")
    clear_ratio: float = Field(
        default=0.9, gt=0, le=1, description="A result is clear at or below this share of the threshold."
    )
    update_every_s: float = Field(
        default=10.0,
        ge=0.1,
        description="How often an alert is repeated while NotOK results come; at once when its severity rises.",
    )


class ChecksConfig(Section):
    """Frames that cannot be trusted: dark, over-exposed, blocked, blurred, frozen, moved, of another size."""

    enabled: bool = Field(default=True, description="Hold each frame against the good ones of calibration.")
    alert_after_s: float = Field(
        default=2.0, ge=0, le=3600, description="So long frames cannot be trusted before that is an alert."
    )
    frozen_after: int = Field(
        default=10, ge=1, le=10_000, description="Frames in a row of a live camera that equal the one before: frozen."
    )


class TlsConfig(Section):
    """Encryption of the connection to the broker; its certificate is always verified."""

    enabled: bool = Field(default=False, description="Use TLS.")
    ca_file: FilePath | None = Field(default=None, description="Certificates to trust; else the system's.")
    cert_file: FilePath | None = Field(default=None, description="Certificate of this client, with `key_file`.")
    key_file: FilePath | None = Field(default=None, description="Private key of this client, with `cert_file`.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        problem = None
        if (self.cert_file is None) != (self.key_file is None):
            problem = "cert_file and key_file belong together; give both or neither"
        elif not self.enabled and (self.ca_file or self.cert_file):
            problem = "certificates are given, but enabled is false; set it to true or remove them"
        if problem:
            raise ValueError(problem)
        return self


class MqttConfig(Section):
    """The broker."""

    host: str = Field(default="localhost", min_length=1, description="Name or address of the broker.")
    port: int = Field(
        default=_PORT, ge=1, le=65535, description=f"TCP port; if none is given and TLS is on, {_TLS_PORT}."
    )
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(_protocol)] = Field(
        default="5", description="MQTT version."
    )
    client_id: str | None = Field(
        default=None, min_length=1, description="Unique at the broker; else made from the station."
    )
    username: str | None = Field(default=None, min_length=1, description="User at the broker.")
    password_file: FilePath | None = Field(
        default=None, description="File with the password, for this user's eyes only."
    )
    password_credential: Level | None = Field(
        default=None, description="Instead of `password_file`: name of the systemd credential with the password."
    )
    tls: TlsConfig = TlsConfig()
    keepalive_s: int = Field(
        default=30,
        ge=5,
        le=65535,
        description="Silence after which the agent gives the connection up; after half as much again the broker "
        "publishes the will.",
    )

    @model_validator(mode="before")
    @classmethod
    def _port_of_tls(cls, keys: object) -> object:
        if not isinstance(keys, dict):
            return keys
        tls = keys.get("tls")
        return {"port": _TLS_PORT, **keys} if isinstance(tls, dict) and tls.get("enabled") is True else keys

    @model_validator(mode="after")
    def _password_has_user(self) -> Self:
        given = [key for key in ("password_file", "password_credential") if getattr(self, key) is not None]
        problem = None
        if len(given) > 1:
            problem = "password_file and password_credential are given; give one"
        elif given and self.username is None:
            problem = f"{given[0]} is given without username; give both"
        if problem:
            raise ValueError(problem)
        return self


class SparkplugConfig(Section):
    """A Sparkplug B 3.0 edge node beside the plain topics, over a second connection to the same broker."""

    enabled: bool = Field(default=False, description="Speak Sparkplug B, too.")
    group_id: Level | None = Field(
        default=None, description="Group; else the levels of `station` above the name, joined by colons."
    )
    edge_node_id: Level | None = Field(default=None, description="Edge node, unique in its group; else `station.name`.")
    device_id: Level = Field(default="vision", description="Device of the edge node; results and alerts are its data.")
    primary_host_id: Level | None = Field(
        default=None,
        description="Host application that must be online for anything to be said; else nobody is waited for.",
    )


class EngineConfig(Section):
    """How the network runs."""

    backend: Literal["auto", "tensorrt", "cuda", "onnxruntime"] = Field(
        default="auto",
        description="What runs the network: TensorRT, ONNX Runtime with CUDA, or ONNX Runtime on the CPU. `auto` takes "
        "the first of them that is there and scores as calibration did; one that is named and cannot run is an error.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of the network. 0 takes all cores but one: capture, archive and MQTT need it, and "
        "a network that takes every core makes frames late.",
    )

    def thread_count(self) -> int:
        """Threads to use, counting the cores that this process may use."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) - 1)


class ArchiveConfig(Section):
    """Pictures kept on this device."""

    enabled: bool = Field(default=True, description="Keep pictures of what was found.")
    max_mib: int = Field(
        default=2048,
        ge=1,
        description="Size of all pictures, MiB; the oldest go first. Half is sure to NotOK, three tenths to OK, two to "
        "NotDecidable; what one leaves unused the others may take.",
    )
    max_age_days: int = Field(default=90, ge=0, description="Days after which a picture goes; 0 keeps it longer.")
    ok_every: int = Field(
        default=1000, ge=0, description="One OK result in so many has its picture kept, for calibrating again; 0 none."
    )


class OutboxConfig(Section):
    """Records that wait for the broker."""

    max_records: int = Field(
        default=100_000,
        ge=100,
        description="Records kept while the broker is away; beyond it results go before alerts.",
    )
    max_mib: int = Field(default=256, ge=1, description="Size of these, MiB; beyond it results go before alerts.")
    max_age_days: int = Field(
        default=30, ge=1, description="Days of running after which a result that still waits is dropped; alerts stay."
    )


class MetricsConfig(Section):
    """Figures for Prometheus, over HTTP, without a password."""

    enabled: bool = Field(default=False, description="Serve them at `http://HOST:PORT/metrics`.")
    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; whoever reaches it may read."
    )
    port: int = Field(default=9464, ge=1, le=65535, description="TCP port, each station its own.")


class LogConfig(Section):
    """What the agent says on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is said.")
    format: LogFormat = Field(
        default="text", description="For people and systemd's journal; or one JSON object a line."
    )


class AgentConfig(Section):
    """The whole file; one for each camera."""

    bundle: FilePath = Field(description="Folder of the calibrated bundle.")
    state_dir: FilePath = Field(
        default=Path("state"),
        validate_default=True,
        description="Folder for `outbox.sqlite`, `archive/`, and `engines/` where they cannot lie beside the bundle.",
    )
    station: StationConfig = StationConfig()
    camera: CameraConfig
    trigger: TriggerConfig = TriggerConfig()
    decision: DecisionConfig = DecisionConfig()
    checks: ChecksConfig = ChecksConfig()
    mqtt: MqttConfig = MqttConfig()
    plc: PlcConfig = PlcConfig()
    commands: CommandsConfig = CommandsConfig()
    sparkplug: SparkplugConfig = SparkplugConfig()
    engine: EngineConfig = EngineConfig()
    archive: ArchiveConfig = ArchiveConfig()
    outbox: OutboxConfig = OutboxConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()


def load(path: Path) -> AgentConfig:
    """The configuration in a YAML file; relative paths in it start at the file's folder.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or says something that is not allowed; lists all of it.
    """
    return config_text.load_model(AgentConfig, path)


def missing_files(config: AgentConfig) -> list[str]:
    """What the configuration names and the disk does not have, each as ``key: path``."""
    return [f"{key}: {path}" for key, path in named_paths(config).items() if not path.exists()]


def named_paths(config: AgentConfig) -> dict[str, Path]:
    """Files and folders that the station reads, by dotted key; ``state_dir``, which it makes, is not among them."""
    named: dict[str, Path | None] = {
        "bundle": config.bundle,
        "mqtt.password_file": config.mqtt.password_file,
        "mqtt.tls.ca_file": config.mqtt.tls.ca_file,
        "mqtt.tls.cert_file": config.mqtt.tls.cert_file,
        "mqtt.tls.key_file": config.mqtt.tls.key_file,
        "commands.token_file": config.commands.token_file,
    }
    source = config.camera.source
    if isinstance(source, str) and kind_of(source) == "path":
        named["camera.source"] = Path(source)
    return {key: path for key, path in named.items() if path is not None}


def reference() -> str:
    """Every key as a Markdown table, for the README."""
    return config_text.markdown_table(AgentConfig)


def example() -> str:
    """A file to begin with; it loads as it is."""
    return _EXAMPLE


_EXAMPLE = """\
# Shiftwatch: one station. Relative paths start at the folder of this file. Every key: see the README.

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
  max_mib: 2048                  # pictures of what was found; the oldest go first
"""
