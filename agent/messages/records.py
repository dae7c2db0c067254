"""Results and alerts: the messages that wait in the outbox until the broker has them.

Times are milliseconds since 1970 in UTC, durations milliseconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import IntEnum
from secrets import token_hex
from typing import Annotated, Any, Literal, TypeAlias

from agent.messages.fields import Bool, Int, Message, Number, Text, TimeMs, finite_or_none, key

Payload: TypeAlias = dict[str, Any]
AlertType: TypeAlias = Literal["new", "update", "end"]

MS_UTC = "ms since 1970, UTC"


class Evaluation(IntEnum):
    """Verdict on a part, numbered as in OPC 40001-101: 0 Undefined, 1 OK, 2 NotOK, 3 NotDecidable."""

    UNDEFINED = 0
    OK = 1
    NOT_OK = 2
    NOT_DECIDABLE = 3


class ResultCode(IntEnum):
    """Why a part has its verdict, where the score does not explain it."""

    NONE = 0
    FRAME_UNUSABLE = 1
    ENGINE_FAULT = 2
    TOO_LATE = 3
    CAMERA_LOST = 4
    PAUSED = 5
    DARK = 6
    OVER_EXPOSED = 7
    BLOCKED = 8
    BLURRED = 9
    FROZEN = 10
    MOVED = 11
    DAMAGED = 12
    NOT_TAUGHT = 13
    TOUCHING = 14
    CUT_OFF = 15
    UNCLEAR = 16


Verdict: TypeAlias = Annotated[Evaluation, key("resultEvaluation", "Verdict. Treat all but 1 as a reject.")]
CODE_NAMES: dict[int, str] = {code.value: code.name.lower().replace("_", " ") for code in ResultCode}
_CODES = ", ".join(f"{code} {name}" for code, name in CODE_NAMES.items())
Code: TypeAlias = Annotated[
    Int, key("resultCode", f"Reason that the score does not show: {_CODES}. More may be added.")
]
Score: TypeAlias = Annotated[Number, key("score", "Squared distance; null if there is none.")]
Threshold: TypeAlias = Annotated[Number, key("threshold", "Scores above it are NotOK.")]
Margin: TypeAlias = Annotated[float | None, key("margin", "(score - threshold) / threshold: negative is good.")]
Speed: TypeAlias = Annotated[float | None, key("speed", "Of a part that passes on a belt; null of others.", "px/s")]
Historical: TypeAlias = Annotated[Bool, key("historical", "Recorded before the connection was up; do not act on it.")]


def new_id() -> str:
    """A new identity for a result, an alert or a session: 32 hexadecimal digits."""
    return token_hex(16)


@dataclass(frozen=True, slots=True)
class DefectRegion(Message):
    """Rectangle in which the score map is above the threshold."""

    x: Annotated[Int, key("x", "Left edge in the frame.", "px")]
    y: Annotated[Int, key("y", "Top edge in the frame.", "px")]
    width: Annotated[Int, key("width", "Width.", "px")]
    height: Annotated[Int, key("height", "Height.", "px")]
    score: Annotated[Number, key("score", "Largest squared distance in it, above the score of the frame.")]
    zone: Annotated[Text | None, key("zone", "Its zone; null where there is one bundle.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneResult(Message):
    """Verdict on one of several zones of a part."""

    seq: Annotated[Int, key("seq", "Number of the frame that decided the zone.")]
    evaluation: Verdict
    code: Code
    score: Score
    threshold: Threshold
    margin: Margin = None

    def __post_init__(self) -> None:
        """Derive the margin."""
        object.__setattr__(self, "margin", _margin(self.score, self.threshold))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Message):
    """Verdict on one part."""

    result_id: Annotated[Text, key("resultId", "Identity; drop repeats by it.")] = field(default_factory=new_id)
    seq: Annotated[Int | None, key("seq", "Number of the (decisive) frame; null if none came in time.")]
    part_id: Annotated[Text | None, key("partId", "The part as the trigger named it.")]
    created_at_ms: Annotated[TimeMs, key("creationTime", "When the frame was captured, or the part asked for.", MS_UTC)]
    evaluation: Verdict
    code: Code = ResultCode.NONE
    score: Score
    threshold: Threshold
    margin: Margin = None
    frames: Annotated[Int, key("frames", "Frames of the part; 0 if none came in time.")] = 1
    zone: Annotated[Text | None, key("zone", "The decisive zone; null where there is one bundle.")] = None
    zones: Annotated[dict[str, ZoneResult], key("zones", "Verdict on each zone by its name.")] = field(
        default_factory=dict
    )
    regions: Annotated[tuple[DefectRegion, ...], key("regions", "Where the defects are, at most 8 in a zone.")] = ()
    image_ref: Annotated[Text | None, key("imageRef", "The kept image, below `state_dir/archive/`.")] = None
    processing_times_ms: Annotated[dict[str, Number], key("processingTimes", "Duration by stage.", "ms")] = field(
        default_factory=dict
    )
    speed_px_s: Speed = None
    camera_frame: Annotated[Int | None, key("cameraFrame", "Number that the camera gave the frame.")] = None
    camera_time_us: Annotated[Int | None, key("cameraTime", "The camera's own clock at that frame.", "µs")] = None
    historical: Historical = False
    is_simulated: Annotated[Bool, key("isSimulated", "The frame came from a file.")] = False

    def __post_init__(self) -> None:
        """Derive the margin."""
        object.__setattr__(self, "margin", _margin(self.score, self.threshold))

    @property
    def record_id(self) -> str:
        """Identity in the outbox."""
        return self.result_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(Message):
    """An alert begins, changes or ends."""

    alert_id: Annotated[Text, key("alertId", "The same from `new` to `end`.")] = field(default_factory=new_id)
    type: Annotated[AlertType, key("type", "`new`, then any number of `update`, then `end`.")]
    severity: Annotated[Int, key("severity", "1 to 1000 as in OPC UA Part 9; higher is more urgent.")]
    cause: Annotated[Text, key("cause", "`defect`, or `camera` or `drift:` and what is wrong.")]
    started_at_ms: Annotated[TimeMs, key("startTime", "When the alert began.", MS_UTC)]
    ended_at_ms: Annotated[TimeMs | None, key("endTime", "When it ended; null while it is active.", MS_UTC)] = None
    result_id: Annotated[Text | None, key("resultId", "The result that caused this message, if one did.")] = None
    historical: Historical = False

    @property
    def record_id(self) -> str:
        """Identity in the outbox: one alert gives several records, at most one of a type for each result."""
        return f"{self.alert_id}:{self.type}:{self.result_id or ''}"

    def ended(self, now_ms: int, result_id: str | None = None) -> Alert:
        """The end of this alert; a clock that was set back does not end it before it began."""
        return replace(self, type="end", ended_at_ms=max(now_ms, self.started_at_ms), result_id=result_id)


def to_json(payload: Payload | list[Any]) -> str:
    """Strict JSON; a number that JSON does not know (NaN, infinite) becomes null."""
    try:
        return _dumps(payload)
    except ValueError:
        return _dumps(_without_non_finite(payload))


def as_historical(payload: str) -> str:
    """The same record, marked as one from before the connection was up."""
    return _dumps({**json.loads(payload), "historical": True})


def _dumps(payload: Payload | list[Any]) -> str:
    # ASCII: a lone surrogate, say from a file name, has no UTF-8 and would stop the loop at the socket or the disk.
    return json.dumps(payload, allow_nan=False, separators=(",", ":"))


def _margin(score: float, threshold: float) -> float | None:
    return finite_or_none((score - threshold) / threshold) if threshold else None


def _without_non_finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return finite_or_none(value)
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_non_finite(item) for item in value]
    return value
