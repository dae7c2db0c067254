"""What the station says: results, alerts, status, information and health, as the JSON that goes out.

Pure data, no input or output. Times are milliseconds since 1970 in UTC, durations milliseconds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping

Payload: TypeAlias = dict[str, Any]
AlertType: TypeAlias = Literal["new", "update", "end"]


class Evaluation(IntEnum):
    """Verdict on a part, numbered as in OPC 40001-101."""

    UNDEFINED = 0
    OK = 1
    NOT_OK = 2
    NOT_DECIDABLE = 3


class ResultCode(IntEnum):
    """Why a part has the verdict it has, where the score does not say it."""

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


def new_id() -> str:
    """A fresh identity for a result, an alert or a session: 32 hexadecimal digits."""
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class DefectRegion:
    """Rectangle where the score map is above the threshold, in frame pixels.

    Attributes:
        zone: In which it lies; None where the station has one bundle.
    """

    x: int
    y: int
    width: int
    height: int
    score: float
    zone: str | None = None

    def payload(self) -> Payload:
        """As it stands in ``regions`` of a result."""
        return {
            "x": self.x,
            "y": self.y,
            "width": self.width,
            "height": self.height,
            "score": finite_or_none(self.score),
            "zone": self.zone,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneResult:
    """The verdict on one of several zones of a part.

    Attributes:
        seq: Number of the frame that decided it.
        score: As of `Result`.
    """

    seq: int
    evaluation: Evaluation
    code: ResultCode
    score: float
    threshold: float

    def payload(self) -> Payload:
        """As it stands in ``zones`` of a result, by its name."""
        return {
            "seq": self.seq,
            "resultEvaluation": int(self.evaluation),
            "resultCode": int(self.code),
            "score": finite_or_none(self.score),
            "threshold": finite_or_none(self.threshold),
            "margin": _margin(self.score, self.threshold),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The verdict on one part.

    Attributes:
        seq: Number of the (decisive) frame in this session; a gap is a frame without a result. None where no frame came
            in time.
        frames: That the part had.
        part_id: As the trigger named the part; None when it did not.
        code: Why, where the score does not say it.
        score: Squared distance; NaN or infinite when the network gave none, null in the payload. Of several zones the
            decisive one's, as the threshold.
        zone: The decisive one; None where the station has one bundle.
        zones: What was found in each; empty likewise.
        image_ref: Where the archive keeps the image; None when it does not.
        processing_times_ms: Duration of each stage.
    """

    seq: int | None
    part_id: str | None
    created_at_ms: int
    evaluation: Evaluation
    score: float
    threshold: float
    code: ResultCode = ResultCode.NONE
    frames: int = 1
    regions: tuple[DefectRegion, ...] = ()
    image_ref: str | None = None
    processing_times_ms: Mapping[str, float] = field(default_factory=dict)
    is_simulated: bool = False
    zone: str | None = None
    zones: Mapping[str, ZoneResult] = field(default_factory=dict)
    result_id: str = field(default_factory=new_id)

    @property
    def record_id(self) -> str:
        """Identity in the outbox."""
        return self.result_id

    @property
    def margin(self) -> float | None:
        """(score - threshold) / threshold: negative is good, 1 is twice the threshold; None without a score."""
        return _margin(self.score, self.threshold)

    def payload(self) -> Payload:
        """Content of the topic ``result``."""
        return {
            "resultId": self.result_id,
            "seq": self.seq,
            "partId": self.part_id,
            "creationTime": self.created_at_ms,
            "resultEvaluation": int(self.evaluation),
            "resultCode": int(self.code),
            "score": finite_or_none(self.score),
            "threshold": finite_or_none(self.threshold),
            "margin": self.margin,
            "frames": self.frames,
            "zone": self.zone,
            "zones": {name: zone.payload() for name, zone in self.zones.items()},
            "regions": [region.payload() for region in self.regions],
            "imageRef": self.image_ref,
            "processingTimes": {stage: finite_or_none(ms) for stage, ms in self.processing_times_ms.items()},
            "historical": False,
            "isSimulated": self.is_simulated,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert begins, changes or ends.

    Attributes:
        alert_id: The same from ``new`` to ``end``.
        severity: 1 to 1000 as OPC UA (Part 9) numbers it: higher is more urgent.
        ended_at_ms: None while the alert is active.
        result_id: The result that caused this message; None when none did.
    """

    type: AlertType
    severity: int
    cause: str
    started_at_ms: int
    ended_at_ms: int | None = None
    result_id: str | None = None
    alert_id: str = field(default_factory=new_id)

    @property
    def record_id(self) -> str:
        """Identity in the outbox: one alert gives several records, at most one of a type for each result."""
        return f"{self.alert_id}:{self.type}:{self.result_id or ''}"

    def ended(self, now_ms: int, result_id: str | None = None) -> Alert:
        """The same alert, over; a clock that was set back does not end it before it began."""
        return replace(self, type="end", ended_at_ms=max(now_ms, self.started_at_ms), result_id=result_id)

    def payload(self) -> Payload:
        """Content of the topic ``alert``, and of each entry of ``alert/state``."""
        return {
            "alertId": self.alert_id,
            "type": self.type,
            "severity": self.severity,
            "cause": self.cause,
            "startTime": self.started_at_ms,
            "endTime": self.ended_at_ms,
            "resultId": self.result_id,
            "historical": False,
        }


def to_json(payload: Payload | list[Any]) -> str:
    """Strict JSON; a number that JSON does not know (NaN, infinite) becomes null."""
    try:
        return _dumps(payload)
    except ValueError:
        return _dumps(_without_non_finite(payload))


def as_historical(payload: str) -> str:
    """The same record, marked as one that was made before the line was up."""
    return _dumps({**json.loads(payload), "historical": True})


def _dumps(payload: Payload | list[Any]) -> str:
    # ASCII: a lone surrogate, say from a file name, has no UTF-8 and would stop the loop at the socket or the disk.
    return json.dumps(payload, allow_nan=False, separators=(",", ":"))


def finite_or_none(value: float) -> float | None:
    """What JSON knows of a number: NaN and infinity become null."""
    number = float(value)
    return number if math.isfinite(number) else None


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
