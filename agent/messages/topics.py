"""The topics of one station, plain and Sparkplug; nothing else in the agent spells a topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent.errors import ConfigError

Verb: TypeAlias = Literal["BIRTH", "DATA", "DEATH", "CMD"]


class Topics:
    """The topics of a station; ``README.md`` shows what is published on each.

    Args:
        root: ``{enterprise}/{site}/{area}/{line}/{cell}/vision/{station}``.

    Raises:
        ConfigError: The root has an empty level, or a character that MQTT reserves.
    """

    def __init__(self, root: str) -> None:
        problems = [f"topic root {root!r} holds {mark!r}" for mark in ("+", "#", "\0") if mark in root]
        if "" in root.split("/"):
            problems.append(f"topic root {root!r} has an empty level")
        if problems:
            raise ConfigError(problems=problems)
        self.root = root
        self.status = f"{root}/status"
        self.info = f"{root}/info"
        self.result = f"{root}/result"
        self.plc = f"{root}/plc"
        self.alert = f"{root}/alert"
        self.alert_state = f"{root}/alert/state"
        self.health = f"{root}/health"
        self.commands = f"{root}/cmd/+"
        self.acknowledgement = f"{root}/cmd/ack"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkplugTopics:
    """The topics of a Sparkplug B edge node with one device (Sparkplug 3.0, chapter 4).

    Attributes:
        primary_host_id: Host application that must be online before anything is published; None: there is none.
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
        """Whether the primary host is online, retained; None without one."""
        return None if self.primary_host_id is None else f"spBv1.0/STATE/{self.primary_host_id}"
