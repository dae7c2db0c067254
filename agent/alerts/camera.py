"""The alert about frames that cannot be trusted: pure, like the decision that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.messages.records import Alert

SEVERITY = 800
"""Of 1000, high: no part can be judged, but none is known to be bad."""


@dataclass(frozen=True, slots=True)
class CameraState:
    """What is remembered between two frames; ``CameraState()`` is the beginning.

    Attributes:
        untrusted_since_ms: Since when no frame could be trusted; None after a good one.
        alert: The alert that is active; None when there is none.
    """

    untrusted_since_ms: int | None = None
    alert: Alert | None = None


def camera_alert_step(
    state: CameraState, cause: str | None, after_ms: int, result_id: str, now_ms: int
) -> tuple[Alert | None, CameraState]:
    """One frame further.

    An alert begins with the first frame at which none could be trusted for ``after_ms``, with the cause of that
    frame, which it keeps; a good frame ends it.

    Args:
        state: From the frame before.
        cause: Why this frame cannot be trusted; None when it can.
        after_ms: So long none must have been good.
        result_id: Identity of this frame's result.
        now_ms: Wall clock, ms since 1970; it may be set back.
    """
    if cause is None:
        return (None if state.alert is None else state.alert.ended(now_ms, result_id)), CameraState()
    since_ms = now_ms if state.untrusted_since_ms is None else min(state.untrusted_since_ms, now_ms)
    state = replace(state, untrusted_since_ms=since_ms)
    if state.alert is not None or now_ms - since_ms < after_ms:
        return None, state
    alert = Alert(
        type="new",
        severity=SEVERITY,
        cause=cause,
        started_at_ms=since_ms,
        result_id=result_id,
        alert_id=f"camera-{result_id}",  # so that a replay gives it again
    )
    return alert, replace(state, alert=alert)
