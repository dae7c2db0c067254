"""The alert about drift, as a pure function."""

from __future__ import annotations

from agent.messages.records import Alert

SEVERITY = 200
"""Low, on the scale to 1000: so far no verdict is worse for it."""


def drift_alert_step(active: Alert | None, cause: str | None, result_id: str, now_ms: int) -> Alert | None:
    """The event of one result, if there is one: an alert starts with a cause, keeps it, and ends without one.

    Args:
        active: The alert that is active.
        cause: What has drifted; None when nothing has.
        result_id: Identity of this result.
        now_ms: Wall clock, ms since 1970; it may be set back.
    """
    if (active is None) == (cause is None):
        return None
    if active is not None:
        return active.ended(now_ms, result_id)
    return Alert(
        type="new",
        severity=SEVERITY,
        cause=str(cause),
        started_at_ms=now_ms,
        result_id=result_id,
        alert_id=f"drift-{result_id}",  # the same when the results are replayed
    )
