"""Sections about the device, its disk and its network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.config.types import FilePath, Host, Level, Section, Shifts, mqtt_version
from agent.logs import LogFormat
from calibration.engine.cpu_cores import usable_cores

if TYPE_CHECKING:
    from typing_extensions import Self

_PORT, _TLS_PORT = 1883, 8883


class TlsConfig(Section):
    """Encryption of the connection to the broker; its certificate is always verified."""

    enabled: bool = Field(default=False, description="Use TLS.")
    ca_file: FilePath | None = Field(default=None, description="Certificates to trust; by default the system's.")
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

    host: Host = Field(default="localhost", description="Name or address of the broker.")
    port: int = Field(default=_PORT, ge=1, le=65535, description=f"TCP port; with TLS the default is {_TLS_PORT}.")
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(mqtt_version)] = Field(
        default="5", description="MQTT version."
    )
    client_id: str | None = Field(
        default=None, min_length=1, description="Unique at the broker; by default made from the station."
    )
    username: str | None = Field(default=None, min_length=1, description="User at the broker.")
    password_file: FilePath | None = Field(
        default=None, description="File with the password, readable by this user only."
    )
    password_credential: Level | None = Field(
        default=None, description="Instead of `password_file`: name of the systemd credential with the password."
    )
    tls: TlsConfig = TlsConfig()
    keepalive_s: int = Field(
        default=30,
        ge=5,
        le=65535,
        description="Silence after which the agent gives up the connection; the broker publishes the will after one "
        "and a half times as long.",
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
    """A Sparkplug B 3.0 edge node next to the plain topics, over a second connection to the same broker."""

    enabled: bool = Field(default=False, description="Publish Sparkplug B as well.")
    group_id: Level | None = Field(
        default=None, description="Group; by default the levels of `station` above the name, joined by colons."
    )
    edge_node_id: Level | None = Field(
        default=None, description="Edge node, unique in its group; by default `station.name`."
    )
    device_id: Level = Field(default="vision", description="Device of the edge node; results and alerts are its data.")
    primary_host_id: Level | None = Field(
        default=None,
        description="Host application that must be online before anything is published; by default none is.",
    )


class EngineConfig(Section):
    """How the network runs."""

    backend: Literal["auto", "tensorrt", "tensorrt_rtx", "cuda", "openvino", "onnxruntime"] = Field(
        default="auto",
        description="What runs the network: TensorRT, TensorRT for RTX, ONNX Runtime with CUDA, OpenVINO or ONNX "
        "Runtime on the CPU. `auto` takes the first that is installed and gives the scores of calibration, and of the "
        "last two the faster; a named one that cannot run is an error.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of the network. 0 takes all cores but one, which capture, archive and MQTT need; "
        "the CPU quota of a container counts as its cores.",
    )

    def thread_count(self) -> int:
        """Threads to use, counting the cores that this process may use, in a container those of its quota."""
        return self.threads or max(1, usable_cores() - 1)


class ArchiveConfig(Section):
    """Images kept on this device."""

    enabled: bool = Field(default=True, description="Keep images of results.")
    max_mib: int = Field(
        default=2048,
        ge=1,
        description="Size of all images, MiB; the oldest are removed first. Half is reserved for NotOK, three tenths "
        "for OK, two for NotDecidable; the others may use what one leaves.",
    )
    max_age_days: int = Field(default=90, ge=0, description="Days after which an image is removed; 0 sets no limit.")
    ok_every: int = Field(
        default=1000,
        ge=0,
        description="One OK result in this many has its image kept, for calibrating again; 0 keeps none.",
    )


class OutboxConfig(Section):
    """Records that wait for the broker."""

    max_records: int = Field(
        default=100_000,
        ge=100,
        description="Records kept while the broker is away; beyond that, results are dropped before alerts.",
    )
    max_mib: int = Field(
        default=256, ge=1, description="Size of these, MiB; beyond that, results are dropped before alerts."
    )
    max_age_days: int = Field(
        default=30, ge=1, description="Days of running after which a waiting result is dropped; alerts stay."
    )


class StatisticsConfig(Section):
    """Counts of parts, verdicts and causes, kept for a year or more in a few MiB."""

    enabled: bool = Field(default=True, description="Count results in `statistics.sqlite`.")
    results: int = Field(
        default=100_000,
        ge=1000,
        le=10_000_000,
        description="Results that are also kept one by one, for `stats --results`; 100 bytes each.",
    )
    shifts: Shifts = Field(
        default={"early": "06:00", "late": "14:00", "night": "22:00"},
        description="Name of each shift and when it begins, by the clock of this device.",
    )

    def shift_minutes(self) -> dict[str, int]:
        """Name of each shift -> its start, minutes after midnight."""
        starts = {name: start.split(":") for name, start in self.shifts.items()}
        return {name: 60 * int(hour) + int(minute) for name, (hour, minute) in starts.items()}


class MetricsConfig(Section):
    """Metrics for Prometheus, over HTTP, without a password."""

    enabled: bool = Field(default=False, description="Serve them at `http://HOST:PORT/metrics`.")
    host: Host = Field(default="127.0.0.1", description="Address to listen on; everyone who reaches it can read.")
    port: int = Field(default=9464, ge=1, le=65535, description="TCP port, a different one for each station.")


class WebConfig(Section):
    """A live page for browsers; needs the extra `web`. Everyone who reaches it can read, the token allows changes."""

    enabled: bool = Field(default=False, description="Serve it at `http://HOST:PORT/`.")
    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8480, ge=1, le=65535, description="TCP port, a different one for each station.")
    names: list[str] = Field(
        default=[],
        description="Host names under which browsers may open it, besides `localhost` and the host's own.",
        json_schema_extra={"allowed": "a list of host names"},
    )
    token_file: FilePath | None = Field(
        default=None,
        description="File with the token for threshold, pause and marks: eight or more letters and digits; "
        "none leaves the page read-only.",
    )


class LogConfig(Section):
    """The log on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The lowest level that is logged."
    )
    format: LogFormat = Field(
        default="text", description="For people and systemd's journal; or one JSON object per line."
    )
