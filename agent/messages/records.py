"""Results and alerts: the messages that wait in the outbox until the broker has them.

Times are milliseconds since 1970 in UTC, durations milliseconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Annotated, Any, Literal, TypeAlias
from uuid import uuid4

from agent.messages.fields import Bool, Int, Message, Number, Text, TimeMs, finite_or_none, on_wire

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


Verdict: TypeAlias = Annotated[Evaluation, on_wire("resultEvaluation", "Verdict. Treat all but 1 as a reject.")]
_CODES = ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ResultCode)
Code: TypeAlias = Annotated[
    Int, on_wire("resultCode", f"Why there is no verdict: {_CODES}. Later versions may add codes.")
]


def new_id() -> str:
    """A new identity for a result, an alert or a session: 32 hexadecimal digits."""
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class DefectRegion(Message):
    """Rectangle in which the score map is above the threshold."""

    x: Annotated[Int, on_wire("x", "Left edge in the frame.", "px")]
    y: Annotated[Int, on_wire("y", "Top edge in the frame.", "px")]
    width: Annotated[Int, on_wire("width", "Width.", "px")]
    height: Annotated[Int, on_wire("height", "Height.", "px")]
    score: Annotated[
        Number, on_wire("score", "Largest squared distance inside, which is above the score of the frame.")
    ]
    zone: Annotated[Text | None, on_wire("zone", "Zone in which it lies; null where the station has one bundle.")] = (
        None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneResult(Message):
    """Verdict on one of several zones of a part."""

    seq: Annotated[Int, on_wire("seq", "Number of the frame that decided the zone.")]
    evaluation: Verdict
    code: Code
    score: Annotated[Number, on_wire("score", "Squared distance; null if there is none.")]
    threshold: Annotated[Number, on_wire("threshold", "Scores above it are NotOK.")]
    margin: Annotated[float | None, on_wire("margin", "(score - threshold) / threshold; null without a score.")] = None

    def __post_init__(self) -> None:
        """Derive the margin."""
        object.__setattr__(self, "margin", _margin(self.score, self.threshold))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Message):
    """Verdict on one part."""

    result_id: Annotated[
        Text, on_wire("resultId", "Identity of the result. Delivery is at least once: drop repeats by it.")
    ] = field(default_factory=new_id)
    seq: Annotated[
        Int | None,
        on_wire("seq", "Number of the (decisive) frame in this session; null if no frame of the part came in time."),
    ]
    part_id: Annotated[Text | None, on_wire("partId", "The part as the trigger named it; null where none names parts.")]
    created_at_ms: Annotated[
        TimeMs, on_wire("creationTime", "When the frame was captured, or the part asked for.", MS_UTC)
    ]
    evaluation: Verdict
    code: Code = ResultCode.NONE
    score: Annotated[
        Number, on_wire("score", "Squared distance; of several zones the decisive one's. Null if there is none.")
    ]
    threshold: Annotated[
        Number, on_wire("threshold", "Scores above it are NotOK; of several zones the decisive one's.")
    ]
    margin: Annotated[
        float | None,
        on_wire(
            "margin",
            "(score - threshold) / threshold: negative is good, 1 is twice the threshold. Null without a score.",
        ),
    ] = None
    frames: Annotated[Int, on_wire("frames", "Frames of the part; 0 if none came in time.")] = 1
    zone: Annotated[Text | None, on_wire("zone", "The decisive zone; null where the station has one bundle.")] = None
    zones: Annotated[
        dict[str, ZoneResult], on_wire("zones", "Verdict on each zone by its name; empty where there is one bundle.")
    ] = field(default_factory=dict)
    regions: Annotated[tuple[DefectRegion, ...], on_wire("regions", "Where the defects are, at most 8 a zone.")] = ()
    image_ref: Annotated[
        Text | None, on_wire("imageRef", "The kept image, relative to state_dir/archive/; null if none is kept.")
    ] = None
    processing_times_ms: Annotated[
        dict[str, Number], on_wire("processingTimes", "Duration of each stage by its name.", "ms")
    ] = field(default_factory=dict)
    historical: Annotated[
        Bool, on_wire("historical", "Recorded before the connection was up: it is not about a part of now.")
    ] = False
    is_simulated: Annotated[Bool, on_wire("isSimulated", "The frame came from a file.")] = False

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

    alert_id: Annotated[Text, on_wire("alertId", "Identity of the alert, the same from `new` to `end`.")] = field(
        default_factory=new_id
    )
    type: Annotated[AlertType, on_wire("type", "`new`, then any number of `update`, then `end`.")]
    severity: Annotated[Int, on_wire("severity", "1 to 1000 as in OPC UA Part 9; higher is more urgent.")]
    cause: Annotated[
        Text,
        on_wire("cause", "`defect`, `camera` and what is wrong with its frames, or `drift:` and what has changed."),
    ]
    started_at_ms: Annotated[TimeMs, on_wire("startTime", "When the alert began.", MS_UTC)]
    ended_at_ms: Annotated[
        TimeMs | None, on_wire("endTime", "When the alert ended; null while it is active.", MS_UTC)
    ] = None
    result_id: Annotated[Text | None, on_wire("resultId", "The result that caused this message; null if none did.")] = (
        None
    )
    historical: Annotated[Bool, on_wire("historical", "Recorded before the connection was up.")] = False

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
