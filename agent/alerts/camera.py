"""The alert about frames that cannot be trusted, as a pure function."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.messages.records import Alert, new_id

SEVERITY = 800
"""High, on the scale to 1000: no part can be inspected, but none is known to be bad."""
LOST = "camera lost"


@dataclass(frozen=True, slots=True)
class CameraState:
    """The memory between two frames; ``CameraState()`` is the start.

    Attributes:
        untrusted_since_ms: Time of the first frame in a row that could not be trusted; None after a good one.
        alert: The alert that is active; None when there is none.
    """

    untrusted_since_ms: int | None = None
    alert: Alert | None = None


def camera_alert_step(
    state: CameraState, cause: str | None, after_ms: int, result_id: str | None, now_ms: int
) -> tuple[Alert | None, CameraState]:
    """The event of one frame, if there is one, and the state after it.

    An alert starts when no frame could be trusted for ``after_ms``, and keeps the cause of that frame. A good frame
    ends it.

    Args:
        state: From the frame before.
        cause: Why this frame cannot be trusted; None when it can.
        after_ms: Time without a good frame.
        result_id: Identity of this frame's result; None if there is no frame.
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
        alert_id=f"camera-{result_id or new_id()}",  # the same when the results are replayed
    )
    return alert, replace(state, alert=alert)
