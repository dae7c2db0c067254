"""The topics of one station, plain and Sparkplug. Nothing else in the agent spells a topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent.errors import ConfigError

Verb: TypeAlias = Literal["BIRTH", "DATA", "DEATH", "CMD"]


@dataclass(frozen=True, slots=True)
class Topics:
    """Full topic strings below one root.

    Attributes:
        root: ``{enterprise}/{site}/{area}/{line}/{cell}/vision/{station}``.

    Raises:
        ConfigError: The root has an empty level, or a character that MQTT reserves.
    """

    root: str

    def __post_init__(self) -> None:
        """Refuse a root that no broker would take."""
        problems = [f"topic root {self.root!r} holds {mark!r}" for mark in ("+", "#", "\0") if mark in self.root]
        if "" in self.root.split("/"):
            problems.append(f"topic root {self.root!r} has an empty level")
        if problems:
            raise ConfigError(problems=problems)

    @property
    def status(self) -> str:
        """Retained: online or not; also the will."""
        return f"{self.root}/status"

    @property
    def info(self) -> str:
        """Retained: which bundle, threshold and camera."""
        return f"{self.root}/info"

    @property
    def result(self) -> str:
        """One message a part."""
        return f"{self.root}/result"

    @property
    def alert(self) -> str:
        """One message whenever an alert begins, changes or ends."""
        return f"{self.root}/alert"

    @property
    def alert_state(self) -> str:
        """Retained: all alerts that are active now."""
        return f"{self.root}/alert/state"

    @property
    def plc(self) -> str:
        """The short one for the controller of the line: once a part, within the deadline or never."""
        return f"{self.root}/plc"

    @property
    def commands(self) -> str:
        """What the agent listens to: one level more, the name of the command."""
        return f"{self.root}/cmd/+"

    @property
    def acknowledgement(self) -> str:
        """The answer to each command."""
        return f"{self.root}/cmd/ack"

    @property
    def health(self) -> str:
        """Every few seconds: is the station well."""
        return f"{self.root}/health"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkplugTopics:
    """The topics of a Sparkplug B edge node with one device (Sparkplug 3.0, chapter 4).

    Attributes:
        primary_host_id: Host application that must be online before anything is said; None waits for none.
    """

    group_id: str
    edge_node_id: str
    device_id: str
    primary_host_id: str | None = None

    def node(self, verb: Verb) -> str:
        """NBIRTH, NDATA, NDEATH and NCMD."""
        return f"spBv1.0/{self.group_id}/N{verb}/{self.edge_node_id}"

    def device(self, verb: Verb) -> str:
        """DBIRTH, DDATA and DDEATH."""
        return f"spBv1.0/{self.group_id}/D{verb}/{self.edge_node_id}/{self.device_id}"

    @property
    def host_state(self) -> str | None:
        """Retained by the primary host: is it online; None without one."""
        return None if self.primary_host_id is None else f"spBv1.0/STATE/{self.primary_host_id}"
