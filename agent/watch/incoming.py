"""Messages of stations as somebody else hears them: checked, since anybody may publish there.

Text is made harmless for a terminal: what does not print becomes a question mark.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_LONGEST_TEXT = 200
_YEAR_3000_MS = 32_503_680_000_000


def printable(text: str) -> str:
    """The same on one line, at most 200 characters, with ``?`` for whatever could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST_TEXT])


Text: TypeAlias = Annotated[str, AfterValidator(printable)]
Time: TypeAlias = Annotated[int, Field(ge=0, le=_YEAR_3000_MS)]


class _Message(BaseModel):
    """Keys that are not used here may say what they want."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, alias_generator=to_camel)


class Status(_Message):
    """Is the station there."""

    online: bool
    state: Text = ""
    reason: Text = ""


class Info(_Message):
    """Which bundle; nothing of it is shown."""


class Health(_Message):
    """How the station is."""

    fps: float
    p99: dict[str, float | None] = {}
    outbox_depth: int = 0
    dropped: dict[str, int] = {}

    @property
    def p99_ms(self) -> float | None:
        """Of a frame from capture to verdict; None if it does not say."""
        return self.p99.get("total")


class Result(_Message):
    """A verdict."""

    result_id: str
    part_id: Text | None = None
    creation_time: Time
    result_evaluation: Annotated[int, Field(ge=0, le=3)]
    result_code: int = 0
    score: float | None = None
    threshold: float | None = None
    zone: Text | None = None
    historical: bool = False

    @property
    def ratio(self) -> float | None:
        """Score against threshold: above 1 is NotOK; None without a score."""
        return None if self.score is None or not self.threshold else self.score / self.threshold


class Plc(_Message):
    """The answer to the PLC."""

    valid: bool


class Alert(_Message):
    """An alert begins, changes or ends."""

    alert_id: str
    type: Literal["new", "update", "end"]
    severity: int
    cause: Text = ""
    start_time: Time
    historical: bool = False


class AlertState(_Message):
    """All alerts that are active now."""

    active: list[Alert]


class CommandAnswer(_Message):
    """What became of a command."""

    command_id: Text
    command: Text = ""
    accepted: bool
    error: Text | None = None
    progress: float | None = None


Message: TypeAlias = Status | Info | Health | Result | Plc | Alert | AlertState | CommandAnswer

_KINDS: dict[str, type[Message]] = {
    "status": Status,
    "info": Info,
    "health": Health,
    "result": Result,
    "plc": Plc,
    "alert": Alert,
    "alert/state": AlertState,
    "cmd/ack": CommandAnswer,
}


class Heard(NamedTuple):
    """A message, as it came and as far as it is used; ``message`` is None if it is malformed."""

    root: str
    content: object
    message: Message | None


def read(topic: str, payload: bytes) -> Heard | None:
    """The message of a station; None for a topic on which stations say nothing."""
    levels = topic.split("/")
    for count in (2, 1):
        root, kind = "/".join(levels[:-count]), "/".join(levels[-count:])
        if root and kind in _KINDS:
            return Heard(printable(root), *_checked(_KINDS[kind], payload))
    return None


def _checked(kind: type[Message], payload: bytes) -> tuple[object, Message | None]:
    try:
        content = json.loads(payload.decode())
        return content, kind.model_validate(content)
    except (ValueError, RecursionError):  # pydantic's are ValueErrors, too
        return None, None
