"""The alert about drift: pure, like the decision that it stands beside."""

from __future__ import annotations

from agent.messages.records import Alert

SEVERITY = 200
"""Of 1000, low: every verdict is as good as ever, so far."""


def drift_alert_step(active: Alert | None, cause: str | None, result_id: str, now_ms: int) -> Alert | None:
    """The event of one result, if there is one: it begins with a cause, which it keeps, and ends without any.

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
        alert_id=f"drift-{result_id}",  # so that a replay gives it again
    )
