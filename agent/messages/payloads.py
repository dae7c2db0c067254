"""The station's other messages: status, info, health, the answer to the PLC, active alerts, answers to commands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, TypeAlias

from pydantic import Strict

from agent.messages.fields import Bool, Int, Message, Number, Text, TimeMs, key
from agent.messages.records import (
    MS_UTC,
    Alert,
    Code,
    Evaluation,
    Payload,
    Result,
    ResultCode,
    Score,
    Speed,
    Threshold,
    Verdict,
)

CommandId: TypeAlias = str | int | float
"""As the sender of a command chose it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Message):
    """Whether the station is online, and how it is; also the will."""

    online: Annotated[Bool, key("online", "False after a stop or a lost connection.")]
    timestamp_ms: Annotated[TimeMs, key("timestamp", "When it was made; of the will, at connecting.", MS_UTC)] = 0
    state: Annotated[Text, key("state", "`running`, `paused`, `lost`, `fault`, `not taught` or `offline`.")] = ""
    reason: Annotated[Text, key("reason", "Why, for people; may be empty.")] = ""
    session_id: Annotated[Text, key("sessionId", "New at each start of the agent.")] = ""
    version: Annotated[Text, key("version", "Version of Shiftwatch.")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInfo(Message):
    """The active bundle of a station or of one of its zones."""

    bundle_hash: Annotated[Text, key("bundleHash", "Identity of the bundle.")] = ""
    threshold: Threshold = math.nan
    false_reject_rate: Annotated[Number, key("falseRejectRate", "Share of good parts above the threshold.")] = math.nan
    backend: Annotated[Text, key("backend", "What runs the network.")] = ""
    backend_reason: Annotated[Text, key("backendReason", "Why this one; may be empty.")] = ""
    calibrated_at_ms: Annotated[TimeMs, key("calibratedAt", "When the bundle was made.", MS_UTC)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Info(BundleInfo):
    """The active bundle; of several zones the first one's, and in `zones` each one's."""

    camera: Annotated[Text, key("camera", "Where frames come from.")] = ""
    zones: Annotated[dict[str, BundleInfo], key("zones", "Bundle of each zone by its name.")] = field(
        default_factory=dict
    )

    @classmethod
    def of(cls, bundle: BundleInfo, camera: str, zones: dict[str, BundleInfo]) -> Info:
        """The message for an active bundle."""
        about = {each.name: getattr(bundle, each.name) for each in fields(BundleInfo)}
        return cls(**about, camera=camera, zones=zones)


NO_LOSS = frozenset({"skipped", "untriggered", "moving", "unsettled", "empty", "paused", "combined"})
"""Reasons in ``dropped`` that count frames which need no result of their own: nothing is lost by them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Message):
    """Figures of the station."""

    timestamp_ms: Annotated[TimeMs, key("timestamp", "When it was made.", MS_UTC)] = 0
    fps: Annotated[Number, key("fps", "Frames captured a second, over the last five seconds.", "1/s")]
    p50_ms: Annotated[dict[str, Number], key("p50", "Median duration by stage.", "ms")] = field(default_factory=dict)
    p99_ms: Annotated[dict[str, Number], key("p99", "Its 99th percentile by stage.", "ms")] = field(
        default_factory=dict
    )
    captured: Annotated[Int, key("captured", "Frames since the start.")] = 0
    results: Annotated[Int, key("results", "Results of these frames.")] = 0
    last_result_age_ms: Annotated[Int | None, key("lastResultAge", "Time since the last result.", "ms")] = None
    camera: Annotated[Text, key("camera", "State of the camera.")] = ""
    dropped: Annotated[dict[str, Int], key("dropped", "Frames without a result, and losses, by reason.")] = field(
        default_factory=dict
    )
    outbox_depth: Annotated[Int, key("outboxDepth", "Records that wait for the broker.")] = 0
    disk_free_bytes: Annotated[Int, key("diskFree", "Free room for records and images.", "bytes")] = 0
    temperature_c: Annotated[float | None, key("temperature", "Temperature of the processor.", "degrees Celsius")] = (
        None
    )
    drift: Annotated[Payload | None, key("drift", "See README.md; null where it is not watched.")] = None
    recalibration: Annotated[Payload | None, key("recalibration", "See README.md; null where none runs.")] = None
    results_per_s: Annotated[
        Number, key("resultsPerSecond", "Results a second, over the last five seconds.", "1/s")
    ] = math.nan
    ok: Annotated[Int, key("ok", "Results that are OK.")] = 0
    not_ok: Annotated[Int, key("notOk", "Results that are NotOK.")] = 0
    not_decidable: Annotated[Int, key("notDecidable", "Results that are NotDecidable.")] = 0
    missed: Annotated[Int, key("missed", "Parts that had no frame; each has a result, too.")] = 0
    outbox_faults: Annotated[Int, key("outboxFaults", "How often results could not be stored.")] = 0
    this_hour: Annotated[
        dict[str, Int], key("thisHour", "`ok`, `notOk`, `notDecidable` since the hour began (UTC), over restarts.")
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlcMessage(Message):
    """The answer to a part, for the controller of the production line: within the deadline or never."""

    seq: Annotated[Int | None, key("seq", "Number of the frame; null if there was none.")] = None
    part_id: Annotated[Text | None, key("partId", "The part as the trigger named it.")] = None
    evaluation: Verdict = Evaluation.UNDEFINED
    code: Code = ResultCode.NONE
    score: Score = math.nan
    valid: Annotated[Bool, key("valid", "The verdict is 1 or 2 and in time, and may be acted upon.")]
    age_ms: Annotated[Int, key("ageMs", "Time since the trigger, or since the capture without one.", "ms")] = 0
    speed_px_s: Speed = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState(Message):
    """All alerts that are active now."""

    timestamp_ms: Annotated[TimeMs, key("timestamp", "When it was published.", MS_UTC)] = 0
    active: Annotated[tuple[Alert, ...], key("active", "The last message of each active alert.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAck(Message):
    """The answer to a command; one that takes time is answered again until `progress` is 1."""

    command_id: Annotated[
        Text | Int | Annotated[float, Strict()] | None,
        key("commandId", "As the command had it; null if it could not be read."),
    ]
    command: Annotated[Text, key("command", "Last level of the command's topic.")] = ""
    accepted: Annotated[Bool, key("accepted", "The command is done, or being done.")]
    error: Annotated[Text | None, key("error", "Why it was refused or failed.")] = None
    progress: Annotated[float | None, key("progress", "0 to 1; null for a command that is done at once.")] = None
    audit_hash: Annotated[
        Text | None, key("auditHash", "Hash of its entry in the audit log; null if nothing changed.")
    ] = None
    phase: Annotated[Text | None, key("phase", "What is being done; absent if there is nothing.")] = None
    figures: Annotated[Payload | None, key("figures", "What was found; only in a last answer.")] = None

    def payload(self) -> Payload:
        """The JSON object to publish; ``phase`` and ``figures`` are left out where there are none."""
        payload = Message.payload(self)
        return {key: value for key, value in payload.items() if value is not None or key not in ABSENT_IF_NULL}


ABSENT_IF_NULL = frozenset({"phase", "figures"})
"""The only keys that a message may lack."""

MESSAGES: dict[str, type[Message]] = {
    "status": Status,
    "info": Info,
    "result": Result,
    "plc": PlcMessage,
    "alert": Alert,
    "alert/state": AlertState,
    "health": Health,
    "cmd/ack": CommandAck,
}
"""What is published on each topic below the station's root."""
