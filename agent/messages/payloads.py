"""The station's other messages: status, info, health, the answer to the PLC, active alerts, answers to commands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from agent.messages.fields import Bool, Int, Message, Number, Text, TimeMs, on_wire
from agent.messages.records import MS_UTC, Alert, Code, Evaluation, Payload, Result, ResultCode, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Message):
    """Whether the station is online, and how it is; also the will."""

    online: Annotated[Bool, on_wire("online", "False after a clean stop, and when the connection is lost.")]
    timestamp_ms: Annotated[
        TimeMs, on_wire("timestamp", "When it was published; of the will when the connection was made.", MS_UTC)
    ] = 0
    state: Annotated[
        Text,
        on_wire(
            "state",
            "`running`; `paused`; `lost`: the camera gives no frames; `fault`: frames cannot be inspected or results "
            "not stored; `offline`.",
        ),
    ] = ""
    reason: Annotated[Text, on_wire("reason", "Why, for people; may be empty.")] = ""
    session_id: Annotated[Text, on_wire("sessionId", "New at each start of the agent.")] = ""
    version: Annotated[Text, on_wire("version", "Version of Shiftwatch.")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInfo(Message):
    """The active bundle of a station or of one of its zones."""

    bundle_hash: Annotated[Text, on_wire("bundleHash", "Identity of the bundle.")] = ""
    threshold: Annotated[Number, on_wire("threshold", "Scores above it are NotOK.")] = math.nan
    false_reject_rate: Annotated[
        Number, on_wire("falseRejectRate", "Share of good parts above the threshold, by calibration.")
    ] = math.nan
    backend: Annotated[Text, on_wire("backend", "What runs the network.")] = ""
    backend_reason: Annotated[Text, on_wire("backendReason", "Why this one; may be empty.")] = ""
    calibrated_at_ms: Annotated[TimeMs, on_wire("calibratedAt", "When the bundle was made.", MS_UTC)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Info(BundleInfo):
    """The active bundle; of several zones the first one's, and in `zones` each one's."""

    camera: Annotated[Text, on_wire("camera", "Where frames come from, without credentials.")] = ""
    zones: Annotated[
        dict[str, BundleInfo], on_wire("zones", "Bundle of each zone by its name; empty where there is one bundle.")
    ] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: BundleInfo, camera: str, zones: dict[str, BundleInfo]) -> Info:
        """The message for an active bundle."""
        about = {each.name: getattr(bundle, each.name) for each in fields(BundleInfo)}
        return cls(**about, camera=camera, zones=zones)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Message):
    """Figures of the station."""

    timestamp_ms: Annotated[TimeMs, on_wire("timestamp", "When the figures were taken.", MS_UTC)] = 0
    fps: Annotated[Number, on_wire("fps", "Results a second, over the last five seconds.", "1/s")]
    p50_ms: Annotated[
        dict[str, Number], on_wire("p50", "Median duration by stage; `total` is from capture to verdict.", "ms")
    ] = field(default_factory=dict)
    p99_ms: Annotated[
        dict[str, Number], on_wire("p99", "Duration by stage that 99 % of the frames did not exceed.", "ms")
    ] = field(default_factory=dict)
    captured: Annotated[Int, on_wire("captured", "Frames since the start: results + dropped frames.")] = 0
    results: Annotated[Int, on_wire("results", "Verdicts on these frames.")] = 0
    last_result_age_ms: Annotated[
        Int | None, on_wire("lastResultAge", "Time since the last verdict; null before the first.", "ms")
    ] = None
    camera: Annotated[Text, on_wire("camera", "State of the camera.")] = ""
    dropped: Annotated[
        dict[str, Int], on_wire("dropped", "Frames, records, images and commands that came to nothing, by reason.")
    ] = field(default_factory=dict)
    outbox_depth: Annotated[Int, on_wire("outboxDepth", "Records that wait for the broker.")] = 0
    disk_free_bytes: Annotated[Int, on_wire("diskFree", "Free room where records and images are kept.", "bytes")] = 0
    temperature_c: Annotated[
        float | None, on_wire("temperature", "Of the processor; null where it reports none.", "degrees Celsius")
    ] = None
    drift: Annotated[
        dict[str, Any] | None,
        on_wire("drift", "Good parts compared with those of calibration, see README.md; null where not watched."),
    ] = None
    recalibration: Annotated[
        dict[str, Any] | None,
        on_wire(
            "recalibration",
            "`commandId`, `zone` (where it has a name), `phase` and `progress` (0 to 1) of the recalibration under "
            "way; null where none is.",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlcMessage(Message):
    """The answer to a part, for the controller of the production line: within the deadline or never."""

    seq: Annotated[Int | None, on_wire("seq", "Number of the frame; null if there was none.")] = None
    part_id: Annotated[Text | None, on_wire("partId", "The part as the trigger named it.")] = None
    evaluation: Verdict = Evaluation.UNDEFINED
    code: Code = ResultCode.NONE
    score: Annotated[Number, on_wire("score", "Squared distance; null if there is none.")] = math.nan
    valid: Annotated[Bool, on_wire("valid", "The verdict is 1 or 2, was made in time, and may be acted upon.")]
    age_ms: Annotated[
        Int, on_wire("ageMs", "Time since the trigger, or since the capture where nothing triggers.", "ms")
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState(Message):
    """All alerts that are active now."""

    timestamp_ms: Annotated[TimeMs, on_wire("timestamp", "When it was published.", MS_UTC)] = 0
    active: Annotated[tuple[Alert, ...], on_wire("active", "The last message of each active alert.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAck(Message):
    """The answer to a command; one that takes time is answered again until `progress` is 1."""

    command_id: Annotated[Text | None, on_wire("commandId", "As the command had it; null if it could not be read.")]
    command: Annotated[Text, on_wire("command", "Last level of the command's topic.")] = ""
    accepted: Annotated[Bool, on_wire("accepted", "The command is done, or being done.")]
    error: Annotated[Text | None, on_wire("error", "Why it was refused or failed.")] = None
    progress: Annotated[float | None, on_wire("progress", "0 to 1; null for a command that is done at once.")] = None
    audit_hash: Annotated[
        Text | None,
        on_wire("auditHash", "Hash of its entry in the audit log; kept elsewhere, it proves that none was cut off."),
    ] = None
    phase: Annotated[Text | None, on_wire("phase", "What is being done; only where there is something.")] = None
    figures: Annotated[
        dict[str, Any] | None, on_wire("figures", "What was found; only in the last answer to a `recalibrate`.")
    ] = None

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
