"""What the page sends with each step, and nothing else: no path to a file but a camera's source and a certificate."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from agent.config.types import Section


class CameraStep(Section):
    """The camera, with the settings that the page shows; the draft checks their values."""

    source: Any = None
    width: Any = None
    height: Any = None
    exposure: Any = None
    gain: Any = None


class ZonesStep(Section):
    """All zones; the draft checks them."""

    zones: Any = None


class PartStep(Section):
    """What a part is; the draft checks the values."""

    source: Any = None
    settled_ms: Any = None
    delay_ms: Any = None


class EmptyPlaceStep(Section):
    """The image of the empty place is this one of the tray, or else the newest of the camera; or forget it."""

    name: str | None = None
    forget: bool = False


class NothingMore(Section):
    """A step that is done or not."""


class SwitchStep(Section):
    """Begin or end."""

    on: bool


class ThrowOutStep(Section):
    """Leave an image of the tray out, or take it back."""

    name: str
    out: bool


class TeachStep(Section):
    """Teach, with this false-reject rate if one is given; or cancel."""

    false_reject_rate: float | None = Field(default=None, alias="falseRejectRate", gt=0, le=0.5)
    cancel: bool = False


class WrongStep(Section):
    """The verdict with this identity was wrong."""

    id: str


class TlsValues(Section):
    """Encryption, and the certificates to trust."""

    enabled: bool = False
    ca_file: str | None = None


class MqttValues(Section):
    """The broker, as the page shows it; what is null or empty has its default. An empty password stays as it was."""

    host: str | None = None
    port: int | None = None
    username: str | None = None
    password: str | None = Field(default=None, pattern=r"^[^\r\n]*$", json_schema_extra={"allowed": "one line of text"})
    tls: TlsValues = TlsValues()


class BrokerStep(Section):
    """The broker, and the station's place in the plant; the draft checks the latter."""

    mqtt: MqttValues = MqttValues()
    station: dict[str, Any] = Field(default={}, json_schema_extra={"allowed": "the levels of the topic"})


STEPS: dict[str, type[Section]] = {
    "camera": CameraStep,
    "zones": ZonesStep,
    "part": PartStep,
    "empty_place": EmptyPlaceStep,
    "take": NothingMore,
    "collect": SwitchStep,
    "from_archive": NothingMore,
    "throw_out": ThrowOutStep,
    "teach": TeachStep,
    "test": SwitchStep,
    "wrong": WrongStep,
    "broker": BrokerStep,
    "go": NothingMore,
}
"""What each step takes."""
