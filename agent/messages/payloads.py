"""What the station says of itself and answers, as JSON objects: one function for each topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.messages.records import finite_or_none

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.messages.records import Alert, Evaluation, Payload, ResultCode


def status_payload(  # noqa: PLR0913 - one keyword for each key of the contract
    *, online: bool, timestamp_ms: int, state: str, reason: str, session_id: str, version: str
) -> Payload:
    """Content of the topic ``status``."""
    return {
        "online": online,
        "timestamp": timestamp_ms,
        "state": state,
        "reason": reason,
        "sessionId": session_id,
        "version": version,
    }


def bundle_payload(  # noqa: PLR0913 - one keyword for each key of the contract
    *,
    bundle_hash: str,
    threshold: float,
    false_reject_rate: float,
    backend: str,
    backend_reason: str,
    calibrated_at_ms: int,
) -> Payload:
    """What ``info`` says of a bundle that judges."""
    return {
        "bundleHash": bundle_hash,
        "threshold": finite_or_none(threshold),
        "falseRejectRate": finite_or_none(false_reject_rate),
        "backend": backend,
        "backendReason": backend_reason,
        "calibratedAt": calibrated_at_ms,
    }


def info_payload(*, camera: str, bundle: Payload, zones: Mapping[str, Payload]) -> Payload:
    """Content of the topic ``info``.

    Args:
        camera: Where frames come from.
        bundle: That judges; of several zones the first one's.
        zones: The bundle of each zone by its name; none where the station has one bundle.
    """
    return {**bundle, "camera": camera, "zones": dict(zones)}


def health_payload(  # noqa: PLR0913 - one keyword for each key of the contract
    *,
    timestamp_ms: int,
    fps: float,
    p50_ms: Mapping[str, float],
    p99_ms: Mapping[str, float],
    captured: int,
    results: int,
    last_result_age_ms: int | None,
    camera: str,
    dropped: Mapping[str, int],
    outbox_depth: int,
    disk_free_bytes: int,
    temperature_c: float | None,
    drift: Payload | None,
    recalibration: Mapping[str, object] | None = None,
) -> Payload:
    """Content of the topic ``health``.

    Args:
        timestamp_ms: Now.
        fps: Results a second.
        p50_ms: Median duration by stage.
        p99_ms: The same that 99 % of the frames did not exceed.
        captured: Frames since the start.
        results: Verdicts on these; the other frames are among ``dropped``.
        last_result_age_ms: Since the last verdict; None before the first.
        camera: Its state.
        dropped: Frames, records and pictures by the reason they were dropped for.
        outbox_depth: Records that wait.
        disk_free_bytes: Where records and pictures lie.
        temperature_c: Of the processor; None where it does not say.
        drift: Of good parts against calibration, see ``drift_payload``; None where it is not watched.
        recalibration: How far it has come; None where none is under way.
    """
    return {
        "timestamp": timestamp_ms,
        "fps": fps,
        "p50": dict(p50_ms),
        "p99": dict(p99_ms),
        "captured": captured,
        "results": results,
        "lastResultAge": last_result_age_ms,
        "camera": camera,
        "dropped": dict(dropped),
        "outboxDepth": outbox_depth,
        "diskFree": disk_free_bytes,
        "temperature": temperature_c,
        "drift": drift,
        "recalibration": None if recalibration is None else dict(recalibration),
    }


def plc_payload(  # noqa: PLR0913 - one keyword for each key of the contract
    *,
    seq: int | None,
    part_id: str | None,
    evaluation: Evaluation,
    code: ResultCode,
    score: float,
    valid: bool,
    age_ms: int,
) -> Payload:
    """Content of the topic ``plc``.

    Args:
        seq: Of the frame; None where there was none.
        part_id: As the trigger named it.
        evaluation: ``NOT_DECIDABLE`` wherever ``valid`` is false.
        code: Why.
        score: NaN where there is none.
        valid: The evaluation was made in time, and may be acted upon.
        age_ms: Since the trigger; since the frame was captured where nobody triggers.
    """
    return {
        "seq": seq,
        "partId": part_id,
        "resultEvaluation": int(evaluation),
        "resultCode": int(code),
        "score": finite_or_none(score),
        "valid": valid,
        "ageMs": age_ms,
    }


def acknowledgement_payload(  # noqa: PLR0913 - one keyword for each key of the contract
    *,
    command_id: str | None,
    command: str,
    accepted: bool,
    error: str | None = None,
    progress: float | None = None,
    audit_hash: str | None = None,
    phase: str | None = None,
    figures: Mapping[str, object] | None = None,
) -> Payload:
    """Content of the topic ``cmd/ack``.

    Args:
        command_id: As the command had it; None where it could not be read.
        command: Last level of its topic.
        accepted: It is done, or being done.
        error: Why it was refused, or failed.
        progress: 0 to 1; None for a command that is done at once.
        audit_hash: Of its entry in the audit log; whoever keeps it can prove that entries were cut off.
        phase: What is being done; only of a command that tells.
        figures: What was found; only of a command that tells, and at its end.
    """
    more = {"phase": phase, "figures": None if figures is None else dict(figures)}
    return {
        "commandId": command_id,
        "command": command,
        "accepted": accepted,
        "error": error,
        "progress": progress,
        "auditHash": audit_hash,
        **{name: value for name, value in more.items() if value is not None},
    }


def alert_state_payload(*, timestamp_ms: int, active: Iterable[Alert]) -> Payload:
    """Content of the topic ``alert/state``."""
    return {"timestamp": timestamp_ms, "active": [alert.payload() for alert in active]}
